"""Words and their pronunciations, from the CMU Pronouncing Dictionary that the pocketsphinx package carries."""

import functools
import re
from pathlib import Path

_WORDS = """
about after again air all always and any apple arm ask autumn away baby back bad bag ball bank bath beach bear
beautiful bed before behind below best between big bird black blood blue boat body bone book both bottle bottom box
boy brave bread bridge bright bring brother brown bug build burn busy butter buy cake call calm camera camp car
card carry cat catch cause chair change cheap cheese child choice church city class clean clear climb clock close
cloth cloud coat coffee coin cold color come cook cool corner cost cough could country cow crowd cry cup cut dance
dark daughter day deep desk dinner dish doctor dog door double down dream dress drink drive drop dry dust each ear
early earth east easy eat edge egg eight empty enjoy enough evening every eye face fall family farm fast father few
field fig fire first fish five floor flower fly fog food foot for forest four fresh friend from front fruit full
garage garden gave girl give glass go goat gold good grass great green ground group grow guess hair half hand happy
hard hat have head hear heart heavy help her here hill his hold home hope horse hot hour house how hundred hurry
ice idea join joke juice jump just keep key kind king kitchen knee knife know lake lamp land large last late laugh
leaf learn leave left leg letter light like line little live long look loud love low lunch make man map march
market may measure meat meet milk mind money month moon more morning mother mountain mouth move much music must
name near neck never new next nice night nine noise north nose nothing now number ocean off often oil old once one
open orange other our out outside over own page paint pair paper park party path pay people phone piece pink place
plan plant play please point poor pot power public pull push put queen question quick quiet rain read red rest rice
rich ride right ring river road roof room root rose round rule run safe salt same sand say school sea season see
send seven shade shape share sharp sheep ship shirt shoe shop short shoulder show shut side simple sing sister sit
six skin sky sleep slow small smile smoke smooth snow soft some song soon sound soup south speak spoon spring star
start stay stone stop story strong summer sun sure sweet swim table take talk tall teach television ten thank that
the then thick thin thing think this thought three through thumb time today together tomorrow tongue tooth top touch
town toy train treasure tree true trust truth turn two uncle under usual valley very view village visit voice wait
walk wall warm wash watch water wave way wear week well west what wheel when where which white why wide wild will
wind window winter wish with woman wood word work world would write yard year yellow yes young your zero zoo
"""
COMMON_WORDS = tuple(_WORDS.split())
"""Common English words that together use every phone of CMUdict many times."""


@functools.cache
def pronunciation(word: str) -> tuple[str, ...]:
    """First pronunciation of a word, as ARPABET symbols without stress.

    Raises ValueError for a word that is not in the dictionary.
    """
    phones = _dictionary().get(word.lower())
    if phones is None:
        raise ValueError(f"text: expected words of the CMU Pronouncing Dictionary, got {word!r}; use another word")
    return tuple(phones.split())


def phrases(text: str) -> tuple[tuple[str, ...], ...]:
    """Words of a text, one tuple for each run of words between punctuation marks."""
    runs = (tuple(re.findall(r"[\w']+", run)) for run in re.split(r"[.,;:!?]+", text))
    return tuple(run for run in runs if run)


@functools.cache
def _dictionary() -> dict[str, str]:
    import pocketsphinx

    path = Path(pocketsphinx.get_model_path("en-us/cmudict-en-us.dict"))
    with path.open(encoding="utf-8") as lines:
        return dict(line.rstrip().split(" ", 1) for line in lines)
