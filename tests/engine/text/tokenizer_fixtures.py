#!/usr/bin/env python3
"""Writes T5 tokenizer folders in many layouts, and the ids transformers gives for awkward prompts in each.

Usage: tokenizer_fixtures.py OUT SEED [FOLDER ...]   FOLDER: ready tokenizer folders to record as well.
OUT/cases.json: {"texts": [...], "lengths": [...], "folders": [{"name", "folder", "whole": [[id]],
"padded": [[[id], [mask]]] (for the first texts, each length in turn), "pad_id", "eos_id"}]}.
"""
import json
import os
import random
import shutil
import sys
import unicodedata

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"

import sentencepiece
from transformers import T5Tokenizer, T5TokenizerFast

ENGLISH = """a red star moving to the right over a dark blue background
The quick brown fox jumps over the lazy dog near the river bank at dawn.
A cinematic, photorealistic drone shot of snow-covered mountains; golden hour, 4k, 24 fps!
Two cats -- one black, one white -- play chess (slowly) in a sunlit room, 50% zoom.
It's raining; she doesn't mind: "what a day", he said, and they'd laughed for $3.50.
slow motion close-up of water drops falling on a leaf, shallow depth of field
an astronaut riding a horse on mars, oil painting, highly detailed, dramatic lighting
people walking through a crowded market street in the evening, neon signs, handheld camera"""

OTHERS = """Ein großer Bär überquert die Straße, während die Sonne untergeht; schöne Grüße aus Köln.
L'élève a mangé une crêpe à l'hôtel où naît la forêt; ça va très bien, garçon.
El niño pequeño corrió rápidamente por la montaña: ¿qué pasó?, ¡nada!
Быстрая коричневая лиса перепрыгнула через ленивую собаку на рассвете.
Η γρήγορη καφέ αλεπού πηδά πάνω από το τεμπέλικο σκυλί.
敏捷的棕色狐狸跳过懒狗。 夕阳下的雪山，航拍镜头，电影质感。
すばやい茶色の狐がのろまな犬を飛び越える。カメラはゆっくり動く。
빠른 갈색 여우가 게으른 개를 뛰어넘는다. 카메라가 천천히 움직인다.
الثعلب البني السريع يقفز فوق الكلب الكسول عند الفجر
השועל החום המהיר קופץ מעל הכלב העצלן
तेज भूरी लोमड़ी आलसी कुत्ते के ऊपर कूदती है। क्ष त्र ज्ञ
ด้วยความรวดเร็วสุนัขจิ้งจอกสีน้ำตาลกระโดดข้ามสุนัขขี้เกียจ
Con cáo nâu nhanh nhẹn nhảy qua con chó lười biếng.
Hızlı kahverengi tilki tembel köpeğin üzerinden atlar; İstanbul'da yağmur."""

AWKWARD = [
    "", " ", "   ", "\t", "\n", "\r\n", " \n\t ", "\u3000", "\u00a0", "\u200b", "\ufeff", "\0", "a\0b", "\0\0", "\x01", "\x7f",
    "\x1b[31mred\x1b[0m", "a\tb\nc\r\nd\x0be\x0cf", "\x85", "a\x85b\u2028c\u2029d",
    "hello", " hello", "hello ", "  hello   world  ", "hello\u00a0world", "hello\u3000world", "a  b", "Hello, World!",
    "</s>", "<pad>", "<unk>", "<extra_id_3>", "<extra_id_99>", "<extra_id_100>", "<extra_id_03>", "<EXTRA_ID_3>", "</ s>",
    "a </s> b", "a</s>b", "</s></s>", "<pad><pad>cat", "cat<extra_id_3>dog", "cat <extra_id_3> dog", "cat  <extra_id_3>  dog",
    "<extra_id_1><extra_id_2>", "<extra_id_1> <extra_id_2>", "<<pad>>", "<pad", "pad>", "</s", "<extra_id_3", "<s>", "</S>",
    "\uff1cpad\uff1e", "\uff1c/s\uff1e x", "\uff1c\uff45xtra_id_3\uff1e", "<\u200bpad>", "<pa\u0301d>", "<pad>\u0301", "</s>\u0301 x",
    "<unk><unk>", "x<unk>y", "\u2603<unk>\u2603", "\uff1cunk\uff1e\u2603", "\u2603\uff1cunk\uff1e",
    "\u2581", "\u2581\u2581", "\u2581a", "a\u2581b", "a\u2581\u2581b", "a \u2581 b", "a\u2581", "\u2581hello\u2581world", "\u2581 \u2581",
    "\uff28\uff45\uff4c\uff4c\uff4f\u3000\uff37\uff4f\uff52\uff4c\uff44\uff01", "\uff11\uff12\uff13", "\ufb01nd \ufb02ow \ufb03 \ufb05",
    "e\u0301", "cafe\u0301 caf\u00e9", "\u0301", "\u0301\u0301a", "a\u0301\u0302\u0303\u0304", "\u00aa\u0301", "\u00ba\u0327x", "\u00b2\u0301 \u00b3",
    "\u00aa\u0897b", "\u00aa\u05c8b", "\u00aa\u200db", "\u00aa\u200cb", "\u2122\u0301", "\u2122\ufe0f", "\u00a9\u200d\u00ae", "\u00a9\ufe0f",
    "\u1100\u1161\u11a8", "\u1112\u1161\u11ab\u1100\u1173\u11af", "\uac00\u11a8", "\uac01", "\u3131\u314f", "\uffa1\uffc2", "\u1161\u0301", "\u1100\u0301\u1161",
    "\u00ad", "so\u00adft", "zero\u200bwidth", "a\u200cb", "a\u200db", "a\u200e\u200fb", "\u202eabc\u202c", "\u2066x\u2069", "a\ufeffb",
    "\u0958\u0301", "\u0915\u094d\u0937", "\u0915\u094d\u200d\u0937", "\u0958\u094d\u0958\u0301", "\u0915\u093c", "\u0e33", "\u0e01\u0e33", "\u0600\u00aa",
    "\U0001F600", "\U0001F468\u200d\U0001F469\u200d\U0001F467", "\U0001F1E9\U0001F1EA", "\U0001F1E9\U0001F1EA\U0001F1EB", "\U0001F44D\U0001F3FD",
    "cat \U0001F431 and dog \U0001F436!", "\u2764\ufe0f\u200d\U0001F525", "1\ufe0f\u20e3", "\u2603\u2603\u2603", "x\u2603\u2603y", "\U0001F3F4\U000E0067\U000E0062\U000E007F",
    "\U00010330\U00010331", "\ue000", "\U000F0000", "\U0010FFFF", "\ufffd", "\uffff", "\u0378", "\u0b53a", "\U0001D400\U0001D7D8", "\u2460 \u32c0 \u33c2 \u3392", "\ufdfa",
    "\u0627\u0644\u0633\u0644\u0627\u0645 \u0639\u0644\u064a\u0643\u0645", "\ufefb\ufefc", "\u05e9\u05b8\u05dc\u05d5\u05b9\u05dd", "abc \u05d0\u05d1 \u0645\u0631",
    "\u654f\u6377\u7684\u68d5\u8272\u72d0\u72f8", "\uf900\u2f00\u3038", "\u304b\u3099", "\u30ab\u3099\u309a", "\uff76\uff9e", "\uff8a\uff9f",
    "~\uff5e\u301c", "\u2018q\u2019 \u201cq\u201d \u2026 \u2013 \u2014", "\u00bd \u2153", "\u0130 \u0131 \u017f \u1e9e", "\u212b \u2126", "\u01c4", "\u0344", "\u0f77", "\u2fa1d",
    "https://example.com/a?b=c&d=%20", "C:\\path\\file.txt", "{\"a\": [1, 2]}", "a_b-c.d,e;f:g!h?i", "0123456789", "1,000.50", "$#@!%^&*()", "\\n\\t\\u0041",
    "supercalifragilisticexpialidocious", "a" * 300, "ab" * 2000, "\u2603" * 200, "hello " * 400, " ".join("x" * n for n in range(1, 80)),
    "e\u0301" * 100, "\U0001F600" * 60, "</s> " * 150, "a" + "\u0301" * 50 + "b", "\u00aa" * 40 + "\u0301", "\ufdfa" * 20,
    "<img> here", "<img>", "  <img>  ", "mask<mask>mask", "a word worded word, swordword", "NEW TOKEN new token New Token", "caf\u00e9token cafe\u0301token",
    # Long runs of spaces, tabs and newlines, alone and inside; text that looks like halves of surrogate pairs.
    " " * 700, "\t" * 300, "\n" * 300, "a" + " " * 513 + "b", "a" + "\t" * 65 + "b" + "\n" * 65 + "c", "\r\n" * 80 + "x", "\u3000" * 90, "\u200b" * 90 + "a",
    "\\ud83d\\ude00", "\\uD83D", "&#xD83D;&#xDE00;", "\ud7ff\ue000", "%ED%A0%BD", "\U0001F600\\udc00",
    # Compatibility forms that become several characters, a space, or nothing; half and full width mixed.
    "\u3300\u33ff", "\u2474\u24b6\u24ea", "\u1e9b\u0323", "\ufb00\u0301", "\u00b4\u00a8\u00b8", "\u2002\u2003\u2009\u202f\u205f", "\uff21\uff42c\uff11\uff12 3",
    "\uff8a\uff9f\u30cf\u309a\u30d1", "\uff01\uff5e\uffe5\uffe6", "\u115f\u1160\u3164\uffa0", "\u202b\u05d0\u0661\u202c\u200f\u0644\u0627", "\u061c\u0640\u0651\u064b",
    "longlong longlonger longlongest", "pneumono" * 60, "\u6f22" * 400, "-" * 600, "\U0001F468\u200d\U0001F469\u200d\U0001F467\u200d\U0001F466" * 30, "lonely<lonely>lonely \u00e9<lonely> <lonely>", "spaced  <spaced>  <spaced> x",
] + ENGLISH.split("\n") + OTHERS.split("\n")

POOLS = [
    [chr(c) for c in range(0x20, 0x7F)],
    list("abcdefghijklmnopqrstuvwxyz     "),
    [chr(c) for c in range(0x00, 0x20)] + ["\x7f", "\x85", "\xa0", "\xad", "\u200b", "\u200c", "\u200d", "\u200e", "\u2028", "\u2060", "\u3000", "\ufeff", "\u1680"],
    [chr(c) for c in range(0xA0, 0x250)],
    [chr(c) for c in range(0x300, 0x370)] + list("aeioucnAEIOU\u00aa\u00ba\u00b2\u2122"),
    [chr(c) for c in range(0xFF01, 0xFFEF)],
    [chr(c) for c in range(0x1100, 0x1200)] + [chr(c) for c in range(0xAC00, 0xAC80)] + [chr(c) for c in range(0x3131, 0x318F)],
    [chr(c) for c in range(0x3040, 0x3100)] + [chr(c) for c in range(0x4E00, 0x4E40)] + [chr(c) for c in range(0x3200, 0x3400)],
    [chr(c) for c in range(0x590, 0x700)] + [chr(c) for c in range(0xFB50, 0xFE00)] + [chr(c) for c in range(0x870, 0x8FF)],
    [chr(c) for c in range(0x900, 0xE80)] + ["\u200d", "\u0301"],
    [chr(c) for c in range(0x1F300, 0x1F700)] + [chr(c) for c in range(0x1F1E6, 0x1F200)] + ["\u200d", "\ufe0f", "\u00a9", "\u00ae", "\u2764"],
    [chr(c) for c in range(0x1E00, 0x2000)],
    [chr(c) for c in range(0x2000, 0x2C00)],
    ["</s>", "<pad>", "<unk>", "<extra_id_0>", "<extra_id_42>", "<", ">", "\u2581", " ", "  ", "\uff1cpad\uff1e", "<img>", "<lonely>", "<spaced>", "a", "cat", "\u0301", "\u00e9"],
]


def random_text(rng):
    text = ""
    for _ in range(rng.randint(1, 4)):
        pool = rng.choice(POOLS + [None])
        for _ in range(rng.randint(1, 12)):
            if pool is not None:
                text += rng.choice(pool)
                continue
            code = rng.randrange(0x110000)
            if not 0xD800 <= code < 0xE000:
                text += chr(code)
    return text


def corpus(rng):
    """Sentences, and made-up words so that larger vocabularies find enough to learn."""
    lines = ENGLISH.split("\n") * 4 + OTHERS.split("\n") * 4
    syllables = ["ka", "ro", "mi", "tu", "len", "dor", "sha", "vi", "ption", "ing", "er", "\u00e9l", "\u00fc", "str", "\u043e\u0432", "\u7535", "\uc601"]
    words = ["".join(rng.choice(syllables) for _ in range(rng.randint(1, 5))) for _ in range(4000)]
    lines += [" ".join(rng.choice(words) for _ in range(12)) for _ in range(3000)]
    return lines


def train(out, name, lines, vocab_size, **options):
    folder = os.path.join(out, "trained", name)
    os.makedirs(folder)
    text = os.path.join(folder, "corpus.txt")
    with open(text, "w", encoding="utf-8") as f:
        f.write("\n".join(lines))
    sentencepiece.SentencePieceTrainer.train(
        input=text, model_prefix=os.path.join(folder, "spiece"), vocab_size=vocab_size, model_type="unigram", pad_id=0, eos_id=1, unk_id=2,
        bos_id=-1, pad_piece="<pad>", eos_piece="</s>", unk_piece="<unk>", hard_vocab_limit=False, num_threads=1, minloglevel=2, **options)
    return os.path.join(folder, "spiece.model")


def put(folder, **files):
    """A tokenizer folder: a str is the path of a file to copy, anything else becomes JSON."""
    os.makedirs(folder)
    for name, content in files.items():
        path = os.path.join(folder, {"spiece": "spiece.model"}.get(name, name + ".json"))
        if isinstance(content, str):
            shutil.copyfile(content, path)
        else:
            with open(path, "w", encoding="utf-8") as f:
                json.dump(content, f)
    return folder


def token(content, **flags):
    return {"content": content, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True} | flags


def as_json(spiece, work, config=None):
    """(tokenizer.json, tokenizer_config.json) as save_pretrained writes them for a sentencepiece model."""
    source = put(os.path.join(work, "source"), spiece=spiece, tokenizer_config=config or {"extra_ids": 100})
    T5Tokenizer.from_pretrained(source).save_pretrained(os.path.join(work, "saved"))
    out = []
    for name in ("tokenizer.json", "tokenizer_config.json"):
        with open(os.path.join(work, "saved", name), encoding="utf-8") as f:
            out.append(json.load(f))
    return out


def layouts(out, name, spiece):
    """The layouts in which T5 folders are published and saved."""
    here = lambda layout: os.path.join(out, f"{name}-{layout}")
    tokenizer_json, saved_config = as_json(spiece, os.path.join(out, "trained", name))
    pieces = sentencepiece.SentencePieceProcessor(model_file=spiece).get_piece_size()
    sentinels = [f"<extra_id_{i}>" for i in range(100)]
    decoder = {0: token("<pad>"), 1: token("</s>"), 2: token("<unk>")}
    decoder |= {pieces + 99 - i: token(f"<extra_id_{i}>", lstrip=True) for i in range(100)}
    named = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    stale = json.loads(json.dumps(tokenizer_json))
    stale["truncation"] = {"direction": "Right", "max_length": 7, "strategy": "LongestFirst", "stride": 0}
    stale["padding"] = {"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0, "pad_token": "<pad>"}
    return [
        put(here("model-only"), spiece=spiece),
        put(here("json-only"), tokenizer=tokenizer_json),
        put(here("model-and-config"), spiece=spiece, tokenizer_config=named | {"extra_ids": 100, "tokenizer_class": "T5Tokenizer"}),
        put(here("saved-by-5"), spiece=spiece, tokenizer=tokenizer_json, tokenizer_config=saved_config),
        put(here("stale-padding"), tokenizer=stale, tokenizer_config=saved_config),
        put(here("slow-legacy"), spiece=spiece, special_tokens_map=named | {"additional_special_tokens": sentinels},
            tokenizer_config=named | {"extra_ids": 100, "additional_special_tokens": sentinels}),
        put(here("with-decoder"), spiece=spiece, added_tokens={f"<extra_id_{i}>": pieces + 99 - i for i in range(100)},
            special_tokens_map={"additional_special_tokens": sentinels, "eos_token": token("</s>"), "pad_token": token("<pad>"), "unk_token": token("<unk>")},
            tokenizer_config=named | {"extra_ids": 100, "additional_special_tokens": sentinels, "legacy": True, "added_tokens_decoder": decoder}),
        put(here("added-file"), spiece=spiece, added_tokens={f"<extra_id_{i}>": pieces + 99 - i for i in range(100)} | {"<img>": pieces + 100},
            special_tokens_map={"eos_token": token("</s>", rstrip=True)}, tokenizer_config={"extra_ids": 100}),
    ]


def oddities(out, spiece):
    """Flags and options that few folders use."""
    here = lambda layout: os.path.join(out, f"odd-{layout}")
    tokenizer_json, _ = as_json(spiece, os.path.join(out, "trained", "odd"))
    sequence = json.loads(json.dumps(tokenizer_json))
    sequence["normalizer"] = {"type": "Sequence", "normalizers": [
        {"type": "Lowercase"}, tokenizer_json["normalizer"], {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "x"}]}
    shorn = json.loads(json.dumps(tokenizer_json))
    shorn["model"]["vocab"] = [row for row in shorn["model"]["vocab"] if not row[0].startswith("<extra_id_")]
    shorn["added_tokens"] = []
    flags = {
        500: token("<img>", lstrip=True, rstrip=True, special=False), 501: token("<lonely>", single_word=True), 502: token("<spaced>", rstrip=True),
        503: token("word", single_word=True, special=False), 504: token("NEW TOKEN", special=False, normalized=True),
        505: token("cafe\u0301token", special=False, normalized=True), 506: token("long", special=False), 507: token("longlonger", special=False),
        508: token(" x", special=False), 509: token("\uff1cmask\uff1e", special=False, normalized=True),
    }
    return [
        put(here("flags"), spiece=spiece, tokenizer_config={"extra_ids": 100, "added_tokens_decoder": flags}),
        put(here("flags-json"), tokenizer=tokenizer_json, tokenizer_config={"extra_ids": 100, "added_tokens_decoder": flags}),
        put(here("split-special"), spiece=spiece, tokenizer_config={"extra_ids": 100, "split_special_tokens": True, "added_tokens_decoder": flags}),
        put(here("no-sentinels"), spiece=spiece, tokenizer_config={"extra_ids": 0}),
        put(here("ten-sentinels"), spiece=spiece, tokenizer_config={"extra_ids": 10}),
        put(here("more-names"), spiece=spiece, tokenizer_config={"extra_ids": 100, "bos_token": "<img>", "mask_token": {"__type": "AddedToken", "content": "<mask>", "lstrip": True},
                                                                "image_token": "<lonely>", "extra_special_tokens": ["<spaced>", "cat"]}),
        put(here("normalizer-sequence"), tokenizer=sequence),
        put(here("shorn-json"), tokenizer=shorn),
        put(here("other-eos"), spiece=spiece, tokenizer_config={"extra_ids": 100, "eos_token": "<extra_id_7>", "pad_token": "<unk>"}),
    ]


def large(out, rng, charsmap_json):
    """As many pieces as the published T5 has, so that size matters too."""
    pieces = {"\u2581" + c for c in "abcdefghijklmnopqrstuvwxyz"} | set("abcdefghijklmnopqrstuvwxyz.,!?-'\u00e9\u00fc") | {"\u2581"}
    while len(pieces) < 32000 - 3:
        word = "".join(rng.choice("etaoinshrdlucmfwypvbgkjqxz") for _ in range(rng.randint(2, 9)))
        pieces.add(word if rng.random() < 0.5 else "\u2581" + word)
    vocab = [["<pad>", 0.0], ["</s>", 0.0], ["<unk>", 0.0]]
    vocab += [[piece, round(-rng.uniform(2, 14), 4)] for piece in sorted(pieces)]
    vocab += [[f"<extra_id_{i}>", 0.0] for i in range(99, -1, -1)]
    content = dict(charsmap_json, model={"type": "Unigram", "unk_id": 2, "vocab": vocab, "byte_fallback": False}, added_tokens=[])
    return put(os.path.join(out, "large"), tokenizer=content, tokenizer_config={"extra_ids": 100})


def main():
    out, seed, ready = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
    assert T5TokenizerFast is T5Tokenizer  # so it does not matter which of the two model_index.json names
    rng = random.Random(seed)
    lines = corpus(rng)
    small = train(out, "small", ENGLISH.split("\n") * 4, 420)
    wide = train(out, "wide", lines, 4000)
    plain = train(out, "plain", lines, 1200, normalization_rule_name="identity")
    folded = train(out, "folded", lines, 1500, normalization_rule_name="nmt_nfkc_cf", user_defined_symbols=["<img>", "word"])
    os.makedirs(os.path.join(out, "trained", "odd"))
    folders = []
    for name, spiece in (("small", small), ("wide", wide), ("plain", plain), ("folded", folded)):
        folders += layouts(out, name, spiece)
    folders += oddities(out, wide)
    with open(os.path.join(out, "wide-json-only", "tokenizer.json"), encoding="utf-8") as f:
        folders.append(large(out, rng, json.load(f)))
    folders += ready

    texts = AWKWARD + [random_text(rng) for _ in range(2000)]
    texts += [unicodedata.normalize("NFD", text) for text in OTHERS.split("\n")]
    lengths = [1, 2, 3, 16, 128, 256]
    cases = []
    for folder in folders:
        tokenizer = T5Tokenizer.from_pretrained(folder)
        whole = tokenizer(texts, padding=False, truncation=False).input_ids
        padded = []
        for i, text in enumerate(AWKWARD):
            encoded = tokenizer(text, padding="max_length", truncation=True, max_length=lengths[i % len(lengths)])
            padded.append([encoded.input_ids, encoded.attention_mask])
        cases.append({"name": os.path.basename(folder) if folder not in ready else "ready", "folder": folder, "whole": whole, "padded": padded,
                      "pad_id": tokenizer.pad_token_id, "eos_id": tokenizer.eos_token_id})
    with open(os.path.join(out, "cases.json"), "w", encoding="utf-8") as f:
        json.dump({"texts": texts, "lengths": lengths, "folders": cases}, f)


if __name__ == "__main__":
    main()
