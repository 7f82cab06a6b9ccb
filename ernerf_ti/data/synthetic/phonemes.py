"""The phones that the synthetic portrait can say: formants, sources and mouth shape of each.

Formants of English vowels are the means of men in Hillenbrand et al. 1995, those of French vowels the means of men in
Calliope 1989; those of consonants are loci after Klatt 1980. Symbols are those of ARPABET, without stress; French
phones that English lacks have symbols of this module.
"""

from dataclasses import dataclass

SILENCE = "SIL"
LIPS_CLOSED = frozenset("PBM")


@dataclass(frozen=True)
class Phone:
    """One phone, spoken by a vocal tract of 17 cm.

    Attributes:
        formants: F1, F2, F3 in Hz at its start.
        formants_end: F1, F2, F3 at its end, for diphthongs; None if they do not change.
        mouth: opening in mm, width in mm and rounding in [0, 1] at its start.
        mouth_end: the same at its end; None if they do not change.
        seconds: typical duration.
        voice: amplitude of the glottal source, 0 to 1.
        breath: amplitude of aspiration noise, which passes through the whole tract.
        hiss: amplitude of frication noise.
        hiss_hz: center and width of the frication spectrum.
        stop: whether the tract closes first and then opens with a burst.
        nasal: whether the sound leaves through the nose.
        pull: dominance over the neighboring phones for opening, width and rounding.
    """

    formants: tuple[float, float, float]
    mouth: tuple[float, float, float]
    seconds: float
    voice: float = 1.0
    breath: float = 0.0
    hiss: float = 0.0
    hiss_hz: tuple[float, float] = (4000.0, 1500.0)
    stop: bool = False
    nasal: bool = False
    formants_end: tuple[float, float, float] | None = None
    mouth_end: tuple[float, float, float] | None = None
    pull: tuple[float, float, float] = (1.0, 1.0, 1.0)


_TONGUE = (0.7, 0.35, 0.2)  # articulated by the tongue: the lips follow the neighboring phones
_LIPS = (2.5, 1.5, 1.5)

VOWELS = {
    "IY": Phone((342, 2322, 3000), (4.5, 58, 0.0), 0.13),
    "IH": Phone((427, 2034, 2684), (6, 54, 0.0), 0.10),
    "EH": Phone((580, 1799, 2605), (9, 53, 0.0), 0.12),
    "AE": Phone((640, 1850, 2601), (12, 55, 0.0), 0.15),
    "AA": Phone((768, 1250, 2522), (15, 50, 0.0), 0.15),
    "AO": Phone((652, 950, 2538), (11, 44, 0.5), 0.15),
    "UH": Phone((469, 1122, 2434), (5.5, 44, 0.5), 0.10),
    "UW": Phone((378, 940, 2343), (3, 38, 1.0), 0.14),
    "AH": Phone((623, 1200, 2550), (9, 50, 0.0), 0.09),
    "ER": Phone((474, 1379, 1710), (5, 45, 0.4), 0.13),
    "EY": Phone((500, 1950, 2650), (8, 54, 0.0), 0.16, formants_end=(370, 2200, 2850), mouth_end=(4.5, 57, 0.0)),
    "AY": Phone((740, 1250, 2500), (15, 51, 0.0), 0.18, formants_end=(420, 2050, 2700), mouth_end=(6, 55, 0.0)),
    "OW": Phone((540, 950, 2450), (9, 43, 0.6), 0.16, formants_end=(400, 800, 2400), mouth_end=(4, 38, 1.0)),
    "AW": Phone((740, 1350, 2500), (15, 51, 0.0), 0.18, formants_end=(450, 900, 2400), mouth_end=(4, 40, 0.9)),
    "OY": Phone((560, 850, 2450), (10, 42, 0.7), 0.19, formants_end=(400, 2050, 2650), mouth_end=(5.5, 55, 0.0)),
}

CONSONANTS = {
    "P": Phone(
        (300, 900, 2300), (0, 50, 0.0), 0.11, 0.0, hiss=0.25, hiss_hz=(900, 1200), stop=True, breath=0.5, pull=_LIPS
    ),
    "B": Phone((250, 900, 2300), (0, 50, 0.0), 0.09, 0.0, hiss=0.15, hiss_hz=(700, 900), stop=True, pull=_LIPS),
    "M": Phone((260, 1000, 2250), (0, 50, 0.0), 0.09, 0.6, nasal=True, pull=_LIPS),
    "T": Phone(
        (320, 1750, 2700),
        (3.5, 52, 0.0),
        0.10,
        0.0,
        hiss=0.6,
        hiss_hz=(4600, 1500),
        stop=True,
        breath=0.4,
        pull=_TONGUE,
    ),
    "D": Phone((280, 1750, 2650), (3.5, 52, 0.0), 0.08, 0.0, hiss=0.35, hiss_hz=(4200, 1500), stop=True, pull=_TONGUE),
    "N": Phone((270, 1650, 2600), (4, 51, 0.0), 0.08, 0.6, nasal=True, pull=_TONGUE),
    "K": Phone(
        (320, 1900, 2300), (5, 51, 0.0), 0.11, 0.0, hiss=0.5, hiss_hz=(2000, 700), stop=True, breath=0.5, pull=_TONGUE
    ),
    "G": Phone((280, 1900, 2250), (5, 51, 0.0), 0.09, 0.0, hiss=0.3, hiss_hz=(1900, 700), stop=True, pull=_TONGUE),
    "NG": Phone((280, 2100, 2600), (5, 51, 0.0), 0.09, 0.55, nasal=True, pull=_TONGUE),
    "F": Phone((340, 1100, 2300), (1.5, 52, 0.0), 0.11, 0.0, hiss=0.16, hiss_hz=(4500, 4500), pull=_LIPS),
    "V": Phone((290, 1100, 2300), (1.5, 52, 0.0), 0.08, 0.45, hiss=0.09, hiss_hz=(4500, 4500), pull=_LIPS),
    "TH": Phone((330, 1400, 2600), (4, 52, 0.0), 0.11, 0.0, hiss=0.13, hiss_hz=(5800, 3000), pull=_TONGUE),
    "DH": Phone((290, 1350, 2550), (4, 52, 0.0), 0.06, 0.5, hiss=0.06, hiss_hz=(5500, 3000), pull=_TONGUE),
    "S": Phone((330, 1700, 2650), (2.5, 54, 0.0), 0.12, 0.0, hiss=0.6, hiss_hz=(5600, 1300), pull=_TONGUE),
    "Z": Phone((290, 1700, 2600), (2.5, 54, 0.0), 0.09, 0.4, hiss=0.4, hiss_hz=(5600, 1300), pull=_TONGUE),
    "SH": Phone((330, 1800, 2500), (3.5, 42, 0.7), 0.12, 0.0, hiss=0.6, hiss_hz=(3200, 1100), pull=(1, 1.2, 1.2)),
    "CH": Phone(
        (330, 1800, 2500), (3.5, 42, 0.7), 0.13, 0.0, hiss=0.6, hiss_hz=(3300, 1100), stop=True, pull=(1, 1.2, 1.2)
    ),
    "JH": Phone(
        (280, 1800, 2500), (3.5, 42, 0.7), 0.11, 0.3, hiss=0.45, hiss_hz=(3300, 1100), stop=True, pull=(1, 1.2, 1.2)
    ),
    "HH": Phone((500, 1500, 2500), (7, 50, 0.0), 0.07, 0.0, breath=0.8, pull=(0.2, 0.1, 0.1)),
    "L": Phone((360, 1100, 2600), (6, 51, 0.0), 0.08, 0.7, pull=_TONGUE),
    "R": Phone((340, 1150, 1550), (4, 44, 0.5), 0.08, 0.75, pull=(1, 1, 1)),
    "W": Phone((310, 680, 2200), (2.5, 36, 1.0), 0.08, 0.7, pull=(1.5, 1.5, 1.5)),
    "Y": Phone((280, 2200, 2950), (4, 55, 0.0), 0.07, 0.7, pull=(1, 1, 1)),
}

_ZH = Phone((290, 1800, 2500), (3.5, 42, 0.7), 0.09, 0.4, hiss=0.4, hiss_hz=(3200, 1100), pull=(1, 1.2, 1.2))

_FRENCH_VOWELS = {
    "I": Phone((308, 2064, 2976), (4, 58, 0.0), 0.10),
    "E": Phone((365, 1961, 2644), (6, 55, 0.0), 0.11),
    "EE": Phone((530, 1718, 2558), (9, 53, 0.0), 0.12),
    "A": Phone((684, 1256, 2503), (14, 52, 0.0), 0.12),
    "OO": Phone((531, 998, 2399), (9, 44, 0.5), 0.12),
    "O": Phone((383, 793, 2283), (5, 39, 0.9), 0.13),
    "U": Phone((315, 764, 2027), (3, 37, 1.0), 0.12),
    "UE": Phone((300, 1750, 2120), (3, 38, 1.0), 0.12),  # as in tu
    "OE": Phone((381, 1417, 2235), (5, 40, 0.9), 0.12),  # as in peu
    "EU": Phone((517, 1391, 2379), (8, 45, 0.5), 0.12),  # as in peur
    # Of nasal vowels the resonances of the nose are left out but for the wider bandwidths.
    "AN": Phone((620, 1000, 2500), (12, 46, 0.4), 0.15, nasal=True),
    "ON": Phone((420, 750, 2300), (6, 40, 0.8), 0.15, nasal=True),
    "EN": Phone((600, 1450, 2550), (11, 53, 0.0), 0.15, nasal=True),
}
_FRENCH_CONSONANTS = {
    **{
        symbol: CONSONANTS[symbol] for symbol in ("P", "B", "M", "T", "D", "N", "K", "G", "F", "V", "S", "Z", "SH", "L")
    },
    "ZH": _ZH,
    "W": CONSONANTS["W"],
    "Y": CONSONANTS["Y"],
    "HW": Phone((280, 1800, 2150), (2.5, 37, 1.0), 0.07, 0.7, pull=(1.5, 1.5, 1.5)),  # as in huit
    "NY": Phone((280, 2200, 2800), (4, 53, 0.0), 0.10, 0.6, nasal=True, pull=_TONGUE),  # as in agneau
    "RR": Phone((400, 1150, 2400), (6, 50, 0.0), 0.08, 0.5, hiss=0.12, hiss_hz=(1400, 900), pull=_TONGUE),  # uvular
}


@dataclass(frozen=True)
class PhoneSet:
    """The phones of a language."""

    vowels: dict[str, Phone]
    consonants: dict[str, Phone]
    not_first: tuple[str, ...]
    """Consonants that begin no syllable."""
    not_last: tuple[str, ...]
    """Consonants that end none."""


PHONE_SETS = {
    "english": PhoneSet(VOWELS, CONSONANTS, ("NG",), ("HH", "W", "Y")),
    "french": PhoneSet(_FRENCH_VOWELS, _FRENCH_CONSONANTS, (), ("W", "HW")),
}
"""Phones of random syllables, by language."""

PHONES = {
    **VOWELS,
    **CONSONANTS,
    "ZH": _ZH,
    **_FRENCH_VOWELS,
    **_FRENCH_CONSONANTS,
    SILENCE: Phone((500, 1500, 2500), (0, 50, 0.0), 0.4, 0.0),
}
"""All phones of CMUdict, those of the other languages, and silence."""
