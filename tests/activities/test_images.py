"""Image files that would take a decoder minutes, or more memory than there is, or that it takes for complete; and
photographs, which are not kept decoded for a whole run."""

import io
import os
import pickle
import socket
import struct
import time
import weakref
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from favor_lab.activities import Example, few_shot, images, load_activities
from favor_lab.activities.checks import check_folder
from favor_lab.activities.images import as_example, decode_image, fingerprint, open_image, read_example
from favor_lab.runs.predicting import image_paths
from favor_lab.vlm import processing
from favor_lab.vlm.processing import encode_prompts
from pictures import picture

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 50, 3), dtype=np.uint8))


def encoded(form: str, image: Image.Image = NOISE, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png_with(*chunks: bytes, after: bytes = b"") -> bytes:
    """A PNG with more chunks before and after those of its pixels."""
    whole = encoded("PNG")
    return whole[:33] + b"".join(chunks) + whole[33:-12] + after + whole[-12:]


def repeated_scan(count: int, side: int, colour: bool) -> bytes:
    """A JPEG of many scans: progressive and grey, or baseline, one colour after the other."""
    if not colour:
        whole = encoded("JPEG", Image.new("L", (side, side), 128), progressive=True)
        return whole[:-2] + whole[whole.rfind(b"\xff\xda") : -2] * count + whole[-2:]
    whole = encoded("JPEG", Image.new("RGB", (side, side), (90, 140, 60)), subsampling=0)
    scans = [b"\xff\xda\0\x08\x01" + bytes([one, 0x11 * (one > 1)]) + b"\0\x3f\0" for one in (1, 2, 3)]
    return whole[: whole.index(b"\xff\xda")] + b"".join(scans) * (count // 3) + whole[-2:]


EXIF, BOMB = b"\xff\xe1\0\x6cExif\0\0" + bytes(100), zlib.compress(bytes(10**8))
MANY_PARTS = {
    "scans of a progressive JPEG": lambda: repeated_scan(1000, 8000, colour=False),
    "scans of a progressive JPEG of few pixels": lambda: repeated_scan(100_000, 16, colour=False),
    "scans of a baseline JPEG": lambda: repeated_scan(3000, 4000, colour=True),
    "comments of a JPEG": lambda: (w := encoded("JPEG"))[:2] + b"\xff\xfe\0\x02" * 10**6 + w[2:],
    "comments between scans": lambda: (w := encoded("JPEG"))[:-2] + b"\xff\xfe\0\x02" * 10**6 + w[-2:],
    "EXIF data of a JPEG": lambda: (w := encoded("JPEG"))[:2] + EXIF * 30_000 + w[2:],
    "chunks of a PNG": lambda: png_with(chunk(b"prVt", b"") * 10**6),
    "chunks after the pixels": lambda: png_with(after=chunk(b"prVt", b"") * 10**6),
    "compressed text": lambda: png_with(chunk(b"zTXt", b"a\0\0" + BOMB)),
    "compressed text after the pixels": lambda: png_with(after=chunk(b"iTXt", b"a\0\1\0\0\0" + BOMB)),
    "a compressed profile": lambda: png_with(chunk(b"iCCP", b"a\0\0" + BOMB)),
}  # fmt: skip


@pytest.mark.parametrize("name", MANY_PARTS)
def test_a_small_file_of_very_many_parts_is_refused_at_once(name, tmp_path):
    (tmp_path / "bad").write_bytes(MANY_PARTS[name]())
    begun = time.process_time()
    with pytest.raises(ValueError, match="bad: cannot be read as an image: "):
        open_image(str(tmp_path / "bad"))
    assert time.process_time() - begun < 2


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_of_very_many_frames_is_read_at_once(form):
    frames = [NOISE.convert("L").point(lambda value, k=k: (value + k) % 256) for k in range(200)]
    data = encoded(form, frames[0].convert("RGB"), save_all=True, append_images=[f.convert("RGB") for f in frames[1:]])
    begun = time.process_time()
    assert decode_image(data, "a").size == NOISE.size
    assert time.process_time() - begun < 1


def test_usual_jpegs_of_many_scans_and_pngs_of_many_chunks_are_read():
    assert decode_image(repeated_scan(50, 300, colour=False), "a.jpg").size == (300, 300)
    assert decode_image(png_with(chunk(b"tEXt", b"a\0b") * 1000), "a.png").size == NOISE.size


def test_pixel_data_that_never_end_are_not_all_decompressed():
    rows = b"".join(b"\0" + row.tobytes() for row in np.asarray(NOISE))
    whole = encoded("PNG")
    data = whole[:33] + chunk(b"IDAT", zlib.compress(rows + bytes(3 * 10**8))) + whole[-12:]
    begun = time.process_time()
    assert decode_image(data, "a.png").tobytes() == NOISE.tobytes()
    assert time.process_time() - begun < 0.5


# ----------------------------------------------------------------------------------------------- complete and undamaged


def test_each_wrong_byte_of_a_png_is_noticed():
    """In its pixels, in its metadata, in a checksum: a decoder checks none of the pixels' own."""
    whole = png_with(chunk(b"tEXt", b"title\0a photograph"), after=chunk(b"tEXt", b"maker\0somebody"))
    random = np.random.default_rng(0)
    for place in [*range(8, 60), *random.integers(8, len(whole), 60), *range(len(whole) - 40, len(whole))]:
        spoilt = bytearray(whole)
        spoilt[place] ^= 1 << random.integers(8)
        try:
            image = decode_image(bytes(spoilt), "a.png")
        except ValueError:
            continue
        assert image.tobytes() == NOISE.tobytes() and place >= len(whole) - 12, place  # of the chunk that ends it


def test_a_png_whose_pixels_fail_their_own_checksum_is_refused():
    rows = b"".join(b"\0" + row.tobytes() for row in np.asarray(NOISE))
    whole, body = encoded("PNG"), bytearray(zlib.compress(rows))
    body[-1] ^= 1  # the writer's mistake: the checksums of the file itself are right
    with pytest.raises(ValueError, match=r"a\.png: cannot be read as an image"):
        decode_image(whole[:33] + chunk(b"IDAT", bytes(body)) + whole[-12:], "a.png")


@pytest.mark.parametrize("options", [{}, {"subsampling": 2, "quality": 30}, {"restart_marker_rows": 1}])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_that_ends_before_its_last_row_is_refused(options, mode):
    """With an end of its own, so that a decoder leaves the lower half grey without a word."""
    whole = encoded("JPEG", NOISE.convert(mode).resize((160, 200)), **options)
    start = whole.index(b"\xff\xda")
    for share in (0.1, 0.3, 0.5, 0.7, 0.9):
        with pytest.raises(ValueError, match=r"a\.jpg: cannot be read as an image"):
            decode_image(whole[: start + 14 + int(share * (len(whole) - start - 16))] + b"\xff\xd9", "a.jpg")
    assert decode_image(whole, "a.jpg").size == (160, 200)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_that_is_grey_in_its_corner_is_complete(mode, progressive):
    grey = Image.new(mode, (90, 70), (128,) * len(mode) if len(mode) > 1 else 128)
    for image in (grey, Image.blend(grey, NOISE.convert(mode).resize(grey.size), 0.0)):
        for tail in (b"", b"\0\xff\xd9 more", encoded("JPEG")):
            data = encoded("JPEG", image, progressive=progressive) + tail
            assert decode_image(data, "a.jpg").size == (90, 70)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF"])
def test_what_follows_an_image_changes_nothing(form):
    data = encoded(form)
    image = decode_image(data, "a")
    for tail in (b"garbage" * 1000, data, b"\0"):
        assert fingerprint(decode_image(data + tail, "a")) == fingerprint(image)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF"])
def test_a_global_setting_of_pillow_lets_no_truncated_file_pass(form, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    data = encoded(form)
    for share in (0.2, 0.5, 0.95):
        with pytest.raises(ValueError, match="cannot be read as an image"):
            decode_image(data[: int(share * len(data))], "a")
    assert decode_image(data, "a").size == NOISE.size
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True, "left as it was for other code"


def test_the_setting_is_left_as_it_was_when_threads_decode_at_once(monkeypatch, tmp_path):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    for number in range(40):
        path = picture(tmp_path / ("reading", "running")[number % 2] / f"{number}.png", number, size=(40, 40))
        if number % 4 == 0:
            path.write_bytes(path.read_bytes()[:-60])
    assert len(check_folder("folder", tmp_path, decode=True).fatal) == 10
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


# ---------------------------------------------------------------------------------------------------- files of any kind


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.bmp", "a.webp", "a.gif"])
@pytest.mark.parametrize("first", [b"", encoded("PNG")])
def test_a_file_that_is_larger_than_memory_is_named_with_its_size_before_it_is_read(tmp_path, name, first):
    path = tmp_path / "reading" / name
    path.parent.mkdir()
    path.write_bytes(first)
    os.truncate(path, 30 * 10**9)  # without a block on the disk
    assert path.stat().st_blocks < 1000
    reason = r"it has 30\.0 GB; a file of more than 0\.6 GB is not read"
    with pytest.raises(ValueError, match=f"{name}: cannot be read as an image: {reason}"):
        open_image(str(path))
    (fault,) = check_folder("folder", tmp_path).fatal
    assert fault.where == f"reading/{name}" and "30.0 GB" in fault.what


def test_a_list_that_is_larger_than_memory_is_named_with_its_size(tmp_path):
    (tmp_path / "UCF-101-midframes/Diving").mkdir(parents=True)
    (tmp_path / "split_zhou_UCF101.json").touch()
    os.truncate(tmp_path / "split_zhou_UCF101.json", 30 * 10**9)
    with pytest.raises(ValueError, match=r"split_zhou_UCF101.json: cannot be read: it has 30\.0 GB"):
        load_activities("ucf101", tmp_path)


@pytest.mark.parametrize("kind", ["pipe", "socket", "folder", "device"])
def test_what_is_no_file_is_never_waited_for(tmp_path, kind, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a socket's path may have 107 bytes
    path = Path("a.jpg")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.close()
    with pytest.raises(
        ValueError, match=r"a\.jpg: cannot be read as an image: it is a (folder|device or a pipe), not a"
    ):
        open_image(str(path))


def test_a_pipe_in_the_place_of_a_parquet_file_is_never_waited_for(tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / "data").mkdir()
    os.mkfifo(tmp_path / "data/train-00000-of-00001.parquet")
    with pytest.raises(ValueError, match="train-00000-of-00001.parquet: .* not a file"):
        load_activities("har15", tmp_path)


# ------------------------------------------------------------------------------------------------ images of many pixels


def photograph(path: Path, seed: int, size=(1600, 1200), **options) -> Path:
    """A file of few bytes and many pixels."""
    small = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8))
    path.parent.mkdir(parents=True, exist_ok=True)
    small.resize(size, Image.Resampling.BICUBIC).save(path, **options)
    return path


@pytest.fixture
def album(tmp_path) -> Path:
    """Eight photographs of two megapixels, 6 MB each when decoded."""
    for number in range(8):
        photograph(tmp_path / ("reading", "running")[number % 2] / f"{number}.jpg", number)
    return tmp_path


def held_by(task) -> tuple[object, int]:
    """What a task returns, and the bytes that are still held then, as far as images take them from Python."""
    before = resident()
    result = task()
    return result, resident() - before


def resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is measured as Linux shows it")
def test_photographs_are_not_kept_decoded(album):
    few_shot(load_activities("folder", album), 1, validation=0, test=0)  # warm
    shots, held = held_by(lambda: few_shot(load_activities("folder", album), 4, validation=0, test=0))
    assert len(shots.train) == 8 and held < 8e6, f"{held / 1e6:.0f} MB of 46 MB are held"


def test_a_photograph_is_the_same_whenever_it_is_asked_for(album):
    (record, *_) = load_activities("folder", album).splits["train"]
    data = load_activities("folder", album)
    example = data.read(record)
    once, again = example.image, example.image
    assert once is not again and once == again == open_image(record.source) and example.size == once.size
    assert example.content == fingerprint(once) and example == data.read(record)
    assert pickle.loads(pickle.dumps(example)) == example
    assert replace(example, label="other").image == once and "reading" in repr(example)
    small = Example(NOISE, "reading", "a.png")
    assert small.image is NOISE and small.size == NOISE.size and small.content == fingerprint(NOISE)


def test_a_photograph_that_changes_or_goes_is_named(album):
    (record, *_) = load_activities("folder", album).splits["train"]
    example = load_activities("folder", album).read(record)
    photograph(Path(record.source), 99)
    with pytest.raises(ValueError, match=r"0\.jpg: the image has changed since it was first read"):
        _ = example.image
    Path(record.source).unlink()
    with pytest.raises(ValueError, match=r"0\.jpg: cannot be read as an image: No such file"):
        _ = example.image


def test_an_image_of_the_usual_size_is_read_once(tmp_path):
    path, calls = picture(tmp_path / "a.png", size=(700, 700)), []

    def read() -> Image.Image:
        calls.append(path)
        return open_image(str(path))

    example = read_example(read, "reading", str(path))
    assert example.image is example.image and len(calls) == 1


@pytest.mark.parametrize("size", [(1600, 1200), (3000, 200), (30, 4000), (725, 724)])
@pytest.mark.parametrize("options", [{}, {"exif": 6}])
def test_a_policy_sees_the_same_of_a_photograph_as_of_an_image_in_memory(tiny_policy, tmp_path, size, options):
    if options:
        exif = Image.Exif()
        exif[images.ORIENTATION] = options["exif"]
        options = {"exif": exif}
    path = photograph(tmp_path / "a.jpg", 3, size, **options)
    kept = Example(open_image(str(path)), "reading", str(path))
    (first, second) = (encode_prompts(tiny_policy, [example], ["reading"]) for example in (as_example(path), kept))
    assert (first.image_features[0] == second.image_features[0]).all() and first.images == second.images
    together = encode_prompts(tiny_policy, [kept, as_example(path), kept], ["reading"])
    assert together.images == first.images * 3


def test_one_photograph_at_a_time_is_decoded_for_the_tower(tiny_policy, album, monkeypatch):
    shots = few_shot(load_activities("folder", album), 4, validation=0, test=0)
    prepared, alive = [], []

    def prepare(example: Example) -> Image.Image:
        image = images.prepare_image(example)
        prepared.append(weakref.ref(image))
        alive.append(sum(reference() is not None for reference in prepared))
        return image

    monkeypatch.setattr(processing, "prepare_image", prepare)
    encode_prompts(tiny_policy, shots.train, shots.labels)
    assert len(alive) == 8 and max(alive) <= 2, alive


@pytest.mark.parametrize("what", ["predict", "check"])
def test_photographs_of_12_megapixels_pass_everywhere_one_by_one(tmp_path, what):
    for number in range(3):
        photograph(tmp_path / "reading" / f"{number}.jpg", number, size=(4000, 3000))
    if what == "check":
        assert not check_folder("folder", tmp_path, decode=True).fatal
    else:
        examples = [as_example(path) for path in image_paths([tmp_path])]
        assert [example.size for example in examples] == [(4000, 3000)] * 3
        assert not any(isinstance(vars(example)["image"], Image.Image) for example in examples)


# ------------------------------------------------------------------------------------------------ one image, many files


def exif_turned(image: Image.Image) -> bytes:
    exif = Image.Exif()
    exif[images.ORIENTATION] = 8
    return encoded("PNG", image.transpose(Image.Transpose.ROTATE_270), exif=exif)


SAME = {
    "PNG with other metadata": lambda: png_with(chunk(b"tEXt", b"title\0another")),
    "PNG, compressed otherwise": lambda: encoded("PNG", compress_level=0),
    "BMP": lambda: encoded("BMP"),
    "TIFF, LZW": lambda: encoded("TIFF", compression="tiff_lzw"),
    "WebP without loss": lambda: encoded("WEBP", lossless=True),
    "with an alpha channel that hides nothing": lambda: encoded("PNG", NOISE.convert("RGBA")),
    "turned by EXIF": lambda: exif_turned(NOISE),
    "with a comment after its end": lambda: encoded("PNG") + b"a comment",
}
GREY = {
    "16 bits for 8": lambda grey: encoded("PNG", Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)),
    "grey as RGB": lambda grey: encoded("PNG", grey.convert("RGB")),
    "grey with alpha": lambda grey: encoded("PNG", grey.convert("LA")),
    "a palette of greys": lambda grey: encoded("PNG", grey.convert("RGB").convert("P", palette=Image.Palette.ADAPTIVE)),
    "GIF": lambda grey: encoded("GIF", grey),
}


@pytest.mark.parametrize("how", SAME)
def test_one_image_in_another_file_is_the_same_image(how):
    assert fingerprint(decode_image(SAME[how](), "a")) == fingerprint(NOISE)


@pytest.mark.parametrize("how", GREY)
def test_one_grey_image_in_another_file_is_the_same_image(how):
    grey = NOISE.convert("L")
    assert fingerprint(decode_image(GREY[how](grey), "a")) == fingerprint(grey)


def test_other_pixels_another_size_and_another_crop_are_other_images():
    changed = NOISE.copy()
    changed.putpixel((0, 0), (1, 2, 3))
    veiled = NOISE.convert("RGBA")
    veiled.putalpha(99)
    others = [
        changed,
        veiled,
        NOISE.resize((25, 30)),
        NOISE.crop((0, 0, 50, 59)),
        NOISE.transpose(Image.Transpose.ROTATE_90),
    ]
    assert len({fingerprint(image) for image in (NOISE, *others)}) == 6
    assert fingerprint(decode_image(encoded("JPEG"), "a.jpg")) != fingerprint(NOISE)
