"""Small folders in the exact layouts of the public sets, for the tests. Every image has other pixels."""

import csv
import itertools
import json
from pathlib import Path

from PIL import Image

from pictures import picture

KINDS = [("RGB", (24, 18)), ("L", (9, 31)), ("RGB", (40, 40)), ("CMYK", (16, 12))]  # JPEG modes, sizes
_seeds = itertools.count()


def photo(path: Path, **options) -> Path:
    """An image of another mode and size than the one before."""
    seed = next(_seeds)
    mode, size = KINDS[seed % len(KINDS)]
    options = {"mode": mode, "size": size} | options
    return picture(path, seed, **options)


def annotation(action: str, file: str, box=(2, 3, 8, 9), size=(24, 18)) -> str:
    """As in XMLAnnotations: xmax before xmin, the depth before height and width."""
    left, top, right, bottom = box
    return (
        f"<annotation>\n <filename>{file}</filename>\n <folder>Stanford40</folder>\n <object>\n  <name>person</name>\n"
        f"  <action>{action}</action>\n  <bndbox>\n   <xmax>{right}</xmax>\n   <xmin>{left}</xmin>\n"
        f"   <ymax>{bottom}</ymax>\n   <ymin>{top}</ymin>\n  </bndbox>\n </object>\n"
        f" <size>\n  <depth>3</depth>\n  <height>{size[1]}</height>\n  <width>{size[0]}</width>\n </size>\n"
        "</annotation>\n"
    )


def stanford40(root: Path, actions=("reading", "riding_a_bike", "throwing_frisby"), train=2, test=3) -> Path:
    """The three archives unpacked. Numbers run over train and test together, as there."""
    lists: dict[str, list[str]] = {"train": [], "test": []}
    for action in actions:
        names = [f"{action}_{number:03d}.jpg" for number in range(1, train + test + 1)]
        for name in names:
            with Image.open(photo(root / "JPEGImages" / name)) as image:
                size = image.size
            write(root / "XMLAnnotations" / name.replace(".jpg", ".xml"), annotation(action, name, size=size))
        for split, part in (("train", names[:train]), ("test", names[train:])):
            lists[split] += part
            write(root / "ImageSplits" / f"{action}_{split}.txt", "\n".join(part) + "\n")
    for split, names in lists.items():
        write(root / "ImageSplits" / f"{split}.txt", "\n".join(names) + "\n")
    counts = "".join(f"{action}\t\t{train + test}\n" for action in actions)
    write(root / "ImageSplits" / "actions.txt", "action_name\tnumber_of_images\n" + counts)
    return root


def har15_kaggle(root: Path, labels=("calling", "listening_to_music", "using_laptop"), train=8, test=2) -> Path:
    """As on Kaggle: rows of all labels mixed, test images without labels."""
    rows = []
    for number in range(train * len(labels)):
        rows.append((f"Image_{number + 1}.jpg", labels[number % len(labels)]))
        photo(root / "train" / rows[-1][0])
    for number in range(test):
        photo(root / "test" / f"Image_{number + 1}.jpg")
    write(root / "Training_set.csv", "filename,label\n" + "".join(f"{file},{label}\n" for file, label in rows))
    write(root / "Testing_set.csv", "filename\n" + "".join(f"Image_{number + 1}.jpg\n" for number in range(test)))
    return root


HAR15 = """calling clapping cycling dancing drinking eating fighting hugging laughing listening_to_music running sitting
sleeping texting using_laptop""".split()


def har15_hub(root: Path, labels=(0, 9, 14), train=8, test=4, names=HAR15, row_group_size=5) -> Path:
    """As on the Hub: one parquet file a split, image structs, ClassLabel numbers; the labels of test are all 0."""
    columns = {"train": [labels[i % len(labels)] for i in range(train * len(labels))], "test": [0] * test}
    for split, numbers in columns.items():
        blobs = [photo(root / "photos" / f"{split}{i}.jpg").read_bytes() for i in range(len(numbers))]
        parquet(root / f"data/{split}-00000-of-00001.parquet", blobs, numbers, names, row_group_size)
    for path in (root / "photos").iterdir():
        path.unlink()
    (root / "photos").rmdir()
    return root


def parquet(path: Path, blobs, labels, names=HAR15, row_group_size=5, column="labels") -> None:
    """One parquet file as `datasets` pushes it, with the features in the schema's metadata."""
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table({"image": [{"bytes": blob, "path": None} for blob in blobs], column: labels})
    if names is not None:
        feature = {"names": list(names), "_type": "ClassLabel"}
        features = {"info": {"features": {"image": {"_type": "Image"}, column: feature}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(table, path, row_group_size=row_group_size)


UCF101 = {"Apply_Eye_Makeup": 0, "Cliff_Diving": 21, "Diving": 25, "Handstand_Pushups": 36, "Push_Ups": 71}


def ucf101(root: Path, classes=UCF101, train=3, val=1, test=2) -> Path:
    """CoOp's folder and split file."""
    table: dict[str, list] = {"train": [], "val": [], "test": []}
    for name, index in classes.items():
        number = itertools.count(1)
        for split, count in (("train", train), ("val", val), ("test", test)):
            for _ in range(count):
                path = f"{name}/v_{name.replace('_', '')}_g{next(number):02d}_c01.jpg"
                photo(root / "UCF-101-midframes" / path)
                table[split].append([path, index, name])
    write(root / "split_zhou_UCF101.json", json.dumps(table, indent=4))
    return root


def ppmi(root: Path, instruments=("frenchhorn", "violin"), train=2, test=2) -> Path:
    """The normalised images."""
    for verb in ("play_instrument", "with_instrument"):
        for instrument in instruments:
            for split, count in (("train", train), ("test", test)):
                for number in range(count):
                    photo(root / "norm_image" / verb / instrument / split / f"{number:04d}.jpg")
    write(root / "README", "about the data")
    return root


def write(path: Path, text: str | bytes) -> Path:
    """A file with this content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def edit_lines(path: Path, change) -> None:
    """Replaces a list's lines by what `change` makes of them."""
    write(path, "".join(f"{line}\n" for line in change(path.read_text().splitlines())))


def edit_split(root: Path, change) -> None:
    """Changes UCF101's split table in place."""
    path = root / "split_zhou_UCF101.json"
    table = json.loads(path.read_text())
    change(table)
    write(path, json.dumps(table))


def rows(path: Path) -> list[list[str]]:
    """The cells of a CSV file."""
    with path.open(newline="") as file:
        return list(csv.reader(file))
