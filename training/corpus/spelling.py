"""Letters → ARPAbet by rule, for words that the dictionary lacks: names, mostly.

Coarse on purpose: which lips a word wants matters here, not its stress or its vowels' exact colour.
"""

RULES = (
    ("tch", "CH"), ("sch", "SH"), ("ough", "AO"), ("augh", "AO"), ("eigh", "EY"), ("igh", "AY"), ("tion", "SH AH N"),
    ("sion", "ZH AH N"), ("ch", "CH"), ("sh", "SH"), ("th", "TH"), ("ph", "F"), ("wh", "W"), ("gh", "G"), ("ck", "K"),
    ("ng", "NG"), ("qu", "K W"), ("kn", "N"), ("wr", "R"), ("ee", "IY"), ("ea", "IY"), ("oo", "UW"), ("ou", "AW"),
    ("ow", "OW"), ("oi", "OY"), ("oy", "OY"), ("ai", "EY"), ("ay", "EY"), ("ey", "IY"), ("au", "AO"), ("aw", "AO"),
    ("ie", "IY"), ("oa", "OW"), ("ue", "UW"), ("er", "ER"), ("ir", "ER"), ("ur", "ER"), ("ar", "AA R"), ("or", "AO R"),
    ("a", "AE"), ("b", "B"), ("c", "K"), ("d", "D"), ("e", "EH"), ("f", "F"), ("g", "G"), ("h", "HH"), ("i", "IH"),
    ("j", "JH"), ("k", "K"), ("l", "L"), ("m", "M"), ("n", "N"), ("o", "AA"), ("p", "P"), ("q", "K"), ("r", "R"),
    ("s", "S"), ("t", "T"), ("u", "AH"), ("v", "V"), ("w", "W"), ("x", "K S"), ("y", "IY"), ("z", "Z"),
)  # fmt: skip
SOFT = {"c": "S", "g": "JH"}


def spell(word: str) -> str:
    """ARPAbet of a lower-case word, phones apart by spaces; never empty for a word with a letter in it."""
    letters = [letter for letter in word if letter.isascii() and letter.isalpha()]
    text = "".join(letters)
    if len(text) > 2 and text.endswith("e") and text[-2] not in "aeiouy":
        text = text[:-1]
    phones: list[str] = []
    while text:
        spelling, sounds = next(rule for rule in RULES if text.startswith(rule[0]))
        rest = text[len(spelling) :]
        if spelling in SOFT and rest[:1] in ("e", "i", "y"):
            sounds = SOFT[spelling]
        if not (len(spelling) == 1 and rest.startswith(spelling) and spelling not in "aeiou"):  # a doubled consonant
            phones += sounds.split()
        text = rest
    return " ".join(phones) or "AH"
