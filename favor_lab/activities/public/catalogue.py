"""Facts about the public sets: labels, published counts, where to get them, under which terms, on-disk layout.

No image of these sets is shipped, and nothing here downloads one. Terms are quoted as far as they could be read; what
is not known is said to be unknown.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from textwrap import indent

from favor_lab.activities.data import readable


@dataclass(frozen=True)
class PublicSet:
    """One public set. `layout` to `splits` are the texts of its guide."""

    title: str
    names: list[str]  # the set's own label names in the set's own order
    counts: dict[str, int]  # published images by split
    layout: str
    source: str
    terms: str
    splits: str
    per_label: dict[str, int] = field(default_factory=dict)  # published images per label by split, if equal
    spelling: dict[str, str] = field(default_factory=dict)  # name -> label, where it is not `readable`

    @property
    def labels(self) -> dict[str, str]:
        """The set's own name of each label -> the label as the prompt names it, in the set's order."""
        return {name: self.spelling.get(name) or readable(name) for name in self.names}

    def guide(self, name: str) -> str:
        """Where the set comes from, under which terms, and how its folder must look."""
        parts = {"Where": self.source, "Terms": self.terms, "Splits": self.splits, "Folder": self.layout}
        body = "\n\n".join(title + "\n" + indent(text.strip("\n"), "  ") for title, text in parts.items())
        count = " + ".join(f"{count:,} {split}".replace(",", " ") for split, count in self.counts.items())
        title = f"{name}: {self.title}\n{len(self.names)} labels, {count} images"
        return f"{title}\n\n{body}\n\nThen check it:  favor-lab data {name} --root ROOT"


STANFORD40 = PublicSet(
    title="Stanford 40 Actions (Yao et al., ICCV 2011)",
    names="""
applauding blowing_bubbles brushing_teeth cleaning_the_floor climbing cooking cutting_trees cutting_vegetables drinking
feeding_a_horse fishing fixing_a_bike fixing_a_car gardening holding_an_umbrella jumping looking_through_a_microscope
looking_through_a_telescope playing_guitar playing_violin pouring_liquid pushing_a_cart reading phoning riding_a_bike
riding_a_horse rowing_a_boat running shooting_an_arrow smoking taking_photos texting_message throwing_frisby
using_a_computer walking_the_dog washing_dishes watching_TV waving_hands writing_on_a_board writing_on_a_book
""".split(),
    spelling={"throwing_frisby": "throwing frisbee"},
    counts={"train": 4000, "test": 5532},
    per_label={"train": 100},
    layout="""
ROOT/JPEGImages/<action>_NNN.jpg
ROOT/ImageSplits/actions.txt, train.txt, test.txt, <action>_train.txt, <action>_test.txt
ROOT/XMLAnnotations/<action>_NNN.xml      (person boxes, for --person-crop; may be left out)
The action is the file's name without its last _NNN; one of them is spelt throwing_frisby.""",
    source="""
http://vision.stanford.edu/Datasets/40actions.html has three archives, to be unpacked into one folder:
Stanford40_JPEGImages.zip, Stanford40_ImageSplits.zip, Stanford40_XMLAnnotations.zip
Mirrors on the Hugging Face Hub hold one zip without a label column and may lack ImageSplits.""",
    terms="""
No licence is known to this project. The photographs were collected from the web and belong to those who took them;
a licence that a mirror states is the mirror's claim. Read the page above before you use or share them.""",
    splits="""
Official, from ImageSplits. Where that folder is missing a quarter of each label is set aside as a test set,
with a warning: results on it compare with nothing that is published.""",
)

HAR15 = PublicSet(
    title='"Human Action Recognition", a Kaggle set',
    names="""calling clapping cycling dancing drinking eating fighting hugging laughing listening_to_music running
sitting sleeping texting using_laptop""".split(),
    counts={"train": 12600},
    per_label={"train": 840},
    layout="""
as on Kaggle:  ROOT/Training_set.csv (filename,label), ROOT/train/Image_N.jpg
               ROOT/Testing_set.csv (filename), ROOT/test/Image_N.jpg      (neither is used)
as on the Hub: ROOT/data/train-00000-of-00001.parquet with the columns image and labels (needs pyarrow);
               ROOT/data/test-00000-of-00001.parquet is not used""",
    source="""
https://www.kaggle.com/datasets/meetnagadia/human-action-recognition-har-dataset  (an account is needed), or
https://huggingface.co/datasets/Bingsu/Human_Action_Recognition""",
    terms="""
The Hub's card states the Open Database License (ODbL), which is about the collection. The terms of the single
photographs, which come from the web, are not known to this project. Read the page that you download from.""",
    splits="""
The 5 400 published test images have no real labels: Kaggle's list has none, the Hub's are all 0. They are never
used. As many images of each label (a quarter of what the smallest label has: 210 of 840) are set aside from train as
a test set; which ones depends on a seed and on each file's name alone. The two layouts give different test sets.""",
)

_UCF101 = """
ApplyEyeMakeup ApplyLipstick Archery BabyCrawling BalanceBeam BandMarching BaseballPitch Basketball BasketballDunk
BenchPress Biking Billiards BlowDryHair BlowingCandles BodyWeightSquats Bowling BoxingPunchingBag BoxingSpeedBag
BreastStroke BrushingTeeth CleanAndJerk CliffDiving CricketBowling CricketShot CuttingInKitchen Diving Drumming Fencing
FieldHockeyPenalty FloorGymnastics FrisbeeCatch FrontCrawl GolfSwing Haircut Hammering HammerThrow HandstandPushups
HandstandWalking HeadMassage HighJump HorseRace HorseRiding HulaHoop IceDancing JavelinThrow JugglingBalls JumpingJack
JumpRope Kayaking Knitting LongJump Lunges MilitaryParade Mixing MoppingFloor Nunchucks ParallelBars PizzaTossing
PlayingCello PlayingDaf PlayingDhol PlayingFlute PlayingGuitar PlayingPiano PlayingSitar PlayingTabla PlayingViolin
PoleVault PommelHorse PullUps Punch PushUps Rafting RockClimbingIndoor RopeClimbing Rowing SalsaSpin ShavingBeard
Shotput SkateBoarding Skiing Skijet SkyDiving SoccerJuggling SoccerPenalty StillRings SumoWrestling Surfing Swing
TableTennisShot TaiChi TennisSwing ThrowDiscus TrampolineJumping Typing UnevenBars VolleyballSpiking WalkingWithDog
WallPushups WritingOnBoard YoYo
""".split()

UCF101 = PublicSet(
    title="UCF101 middle frames in the layout of CoOp (Soomro et al., 2012; Zhou et al., 2022)",
    # CoOp's folders: the class name of UCF101, cut before each capital.
    names=["_".join(re.findall("[A-Z][a-z]*", name)) for name in _UCF101],
    counts={"train": 7639, "validation": 1898, "test": 3783},
    layout="""
ROOT/split_zhou_UCF101.json      {"train": [[path, index, name], ...], "val": [...], "test": [...]}
ROOT/UCF-101-midframes/<Class_Name>/v_<ClassName>_gNN_cNN.jpg""",
    source="""
DATASETS.md of https://github.com/KaiyangZhou/CoOp links both files: UCF-101-midframes.zip and split_zhou_UCF101.json.
The videos themselves: https://www.crcv.ucf.edu/data/UCF101.php""",
    terms="""
No licence is known to this project. The clips were cut from videos that people uploaded to the web and belong to
them. Read the pages above before you use or share the frames.""",
    splits="Official, from the JSON file: train, val (here: validation) and test.",
)

_INSTRUMENTS = "bassoon cello clarinet erhu flute frenchhorn guitar harp recorder saxophone trumpet violin".split()
_VERBS = {"play_instrument": "playing", "with_instrument": "holding"}

PPMI = PublicSet(
    title="People Playing Musical Instrument, normalised images (Yao and Fei-Fei, CVPR 2010)",
    names=[f"{verb}/{instrument}" for verb in _VERBS for instrument in _INSTRUMENTS],
    spelling={
        f"{folder}/{instrument}": f"{verb} {'French horn' if instrument == 'frenchhorn' else instrument}"
        for folder, verb in _VERBS.items()
        for instrument in _INSTRUMENTS
    },
    counts={"train": 2400, "test": 2400},
    per_label={"train": 100, "test": 100},
    layout="ROOT/norm_image/{play_instrument,with_instrument}/<instrument>/{train,test}/<image>",
    source="""
http://ai.stanford.edu/~bangpeng/ppmi.html, archive norm_ppmi_12class.zip (12 instruments; another has 7)""",
    terms="""
No licence is known to this project. The photographs were collected from the web and belong to those who took them.
Read the page above before you use or share them.""",
    splits="""
Official, from the folders. An image of with_instrument shows somebody who holds the instrument and does not play it;
it often differs from one of play_instrument by the hands alone.""",
)

PUBLIC: dict[str, PublicSet] = {"stanford40": STANFORD40, "har15": HAR15, "ucf101": UCF101, "ppmi": PPMI}

FOLDER_GUIDE = """folder: your own images, sorted by label

Folder
  ROOT/<label>/<image>, or ROOT/train/<label>/<image> and ROOT/test/<label>/<image> (validation as well, if you like)
  A label is its folder's name with spaces for underscores. The folders of splits may also be called training; valid,
  val, dev; testing, eval, evaluation, in any case.
  Six formats: JPEG (.jpg, .jpeg, .jpe, .jfif), PNG, BMP, GIF, WebP, TIFF (.tif, .tiff), suffixes in any case; HEIC as
  well, as iPhones write it, after `pip install 'favor-lab[heic]'`. Hidden files and what operating systems leave behind
  (__MACOSX, Thumbs.db) are left out; other files too, in a warning that says what converts AVIF, HEIC and videos.

Images
  A file is what its content says: a PNG called .jpg is read. EXIF rotation is applied, transparency laid on white;
  CMYK, palettes and 16 bits become 8-bit RGB; an animation gives its first frame.
  Refused by name, all at once: what is empty, cut off or of another format, more than 89 million pixels, one side more
  than 200 times the other, EXIF data that cannot be read, a PNG with a wrong checksum, more than 600 MB, broken links,
  names that are not UTF-8, folders without images or that read as one label, an image under two labels. Not noticed:
  noise in the middle of a JPEG, which decoders hide.
  An image that is there twice is never drawn twice: the second is passed over, in a warning. To leave images out for
  good: --write-exclude FILE, then --exclude FILE with every command.

Then check it:  favor-lab data folder --root ROOT"""
