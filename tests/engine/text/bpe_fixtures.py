#!/usr/bin/env python3
"""Writes byte-level BPE tokenizer folders (LLaMA-3's kind and CLIP's), and the ids transformers gives for awkward prompts in each.

Usage: bpe_fixtures.py OUT tokenizers SEED | OUT characters SEED
The first writes OUT/cases.json: {"texts": [...], "lengths": [...], "templates": {name: text}, "large": [text], "folders": [{"name", "folder", "kind",
"whole": [[id]], "padded": [[[id], tokens]] (for the first texts, each length in turn), "templates": {name: [id]}, "large": [[id]], "pad_id",
"tokens": {text: id}}]}. The second writes OUT/characters.json: what `tokenizers` says of characters; see characters().
"""
import ast
import importlib.util
import json
import os
import random
import shutil
import sys
import unicodedata

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import CLIPTokenizer, PreTrainedTokenizerFast
from transformers.utils import logging

from tokenizer_fixtures import AWKWARD, ENGLISH, OTHERS, POOLS, corpus, random_text

LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
CLIP = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
# GPT-4o's and Qwen2's, and constructs that no published file is known to have.
OTHER_PATTERNS = [
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"(?<=[a-z])\d+|(?<!\s)\p{Lu}|(?>\s+)\S|\p{P}++|(?:ab)+?b|[\-\]x]{2,}|(a|e)\1?".replace(r"\1?", ""),
    r"(?i:k's|don't)|\P{L}+",
]
SPECIAL = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
PIECES = SPECIAL + ["<image>", "<pad>", "<|startoftext|>", "<|endoftext|>", "<|ENDOFTEXT|>", "<|eot_id|", "|>", "<|", "<unk>", "</w>", "<word>"]
CONTRACTIONS = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'RE", "'lL", "'\u017f", "'\u017ft", "\u212a", "'x", "''s", "\u2019s"]
MORE = [
    "it's don't we're I've I'm she'll he'd", "IT'S DON'T WE'RE", "it'\u017f \u212aelvin", "1 12 123 1234 12345 1234567", "a1b22c333d4444", "x=1;y+=2", "\n\n\n", " \n \n ", "a\n\nb",
    "a\r\n\r\nb", "end. \n\n Next", "tabs\t\tand  spaces   end   ", "trailing ", "trailing  ", " \t\n", "...\n\n", "?!\r\n", " !?\n", "\u00a0\u00a0x", "\u3000\u3000\n\u3000",
    "<|begin_of_text|>", "<|eot_id|><|eot_id|>", "a<|eot_id|>b", "a <image> b", "<image>\n<image>", "<|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|>", "<|EOT_ID|>", "<pad><pad>x<pad>",
    "<|endoftext|>", "<|startoftext|> a cat <|endoftext|>", "<|STARTOFTEXT|>", "<|endoftext|>a", " <|endoftext|> ", "<| endoftext |>", "!!", "!", "a!b", "!!'s", "'s'", "don''t", "\u0130stanbul I\u0307",
    "\u03a3\u0391\u03a3 \u03c2", "\u1c89\ua7cb\ua7dc\U00010d50\U00016ea0", "\u0f73\u0f71", "\u0958\u0959", "\u2126\u212b\u212a", "\U00011935\U00011930 \U00011938", "\U0001d15e", "\ufb1d\ufb2a",
    "\u0897\u0301\u0898", "a\u0345\u0301\u0327", "\u1e9b\u0323", "\u1100\u1161\u11a8\u11a7", "\uac00\u11a8\u11a9", "\u088f\u0c5c\u0cdc", "\ua7ce\ua7d2\U00010940", "\u1c80\u1c8a", "\u0300abc",
    "x" * 5000, "\u4e2d" * 3000, "1" * 1000, " " * 2000 + "x", "\n" * 1000, "'s" * 500, "!?" * 700, "<image>" * 100, "a " * 1500, "\U0001F600\u200d" * 300, "<word>word<word> a<word>", "word", "sword word",
]


def template_texts():
    """The prompt templates of diffusers' pipelines, read from their source."""
    root = os.path.join(importlib.util.find_spec("diffusers").submodule_search_locations[0], "pipelines", "hunyuan_video")
    out = {}
    for name in sorted(os.listdir(root)):
        if not name.startswith("pipeline_"):
            continue
        with open(os.path.join(root, name), encoding="utf-8") as f:
            tree = ast.parse(f.read())
        for node in tree.body:
            if isinstance(node, ast.Assign) and node.targets[0].id == "DEFAULT_PROMPT_TEMPLATE":
                out[name] = ast.literal_eval(node.value)["template"]
    assert len(out) >= 4
    return out


def awkward_texts(rng):
    texts = AWKWARD + MORE + [unicodedata.normalize("NFD", text) for text in OTHERS.split("\n")] + OTHERS.upper().split("\n")
    pools = POOLS + [PIECES + CONTRACTIONS + [" ", "  ", "\n", "a", "1"], CONTRACTIONS + list("abcIT \n")]
    for i in range(1000):
        text = random_text(rng)
        if i % 2:
            text += "".join(rng.choice(rng.choice(pools)) for _ in range(rng.randint(1, 20)))
        texts.append(text)
    return texts


def trained(lines, vocab_size, split=LLAMA3, **model):
    """Trained small; `model` goes to BPE after training."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(split), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(lines, trainer)
    for key, value in model.items():
        setattr(tokenizer.model, key, value)
    return tokenizer


def llama(lines):
    tokenizer = trained(lines, 2000)
    content = json.loads(tokenizer.to_str())
    # A word that no merge makes: ignore_merges takes it whole.
    vocab = content["model"]["vocab"]
    for word in ("supercalifragilisticexpialidocious", "\u0120\u00d0\u00bb\u00d0\u00b8\u00d1\u0123\u00d0\u00b0"):
        assert word not in vocab
        vocab[word] = len(vocab)
    content["model"]["ignore_merges"] = True
    tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.add_tokens([AddedToken("<image>", normalized=False, special=True)])
    tokenizer.add_special_tokens(["<pad>"])
    begin = tokenizer.token_to_id("<|begin_of_text|>")
    tokenizer.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=True),
        processors.TemplateProcessing(single="<|begin_of_text|> $A", pair="<|begin_of_text|> $A <|begin_of_text|>:1 $B:1", special_tokens=[("<|begin_of_text|>", begin)])])
    return json.loads(tokenizer.to_str())


def put(out, name, kind, files):
    folder = os.path.join(out, name)
    os.makedirs(folder)
    for file, content in files.items():
        with open(os.path.join(folder, file), "w", encoding="utf-8") as f:
            f.write(content if isinstance(content, str) else json.dumps(content))
    return {"name": name, "folder": folder, "kind": kind}


def changed(content, **sections):
    return json.loads(json.dumps(content)) | sections


def token(content, **flags):
    return {"content": content, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True} | flags


def byte_level_folders(out, lines):
    base = llama(lines)
    named = {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>", "pad_token": "<pad>"}
    config = named | {"model_max_length": 256, "tokenizer_class": "PreTrainedTokenizerFast"}
    put_here = lambda name, tokenizer, config=config, **files: put(
        out, name, "byte_level", {"tokenizer.json": tokenizer, "tokenizer_config.json": config} | {f"{key}.json": value for key, value in files.items()})
    decoder = {str(row["id"]): {key: value for key, value in row.items() if key != "id"} for row in base["added_tokens"]}
    strings = changed(base)
    strings["model"]["merges"] = ["#version: 0.2"] + [" ".join(pair) for pair in strings["model"]["merges"]]
    stale = changed(base, truncation={"direction": "Right", "max_length": 7, "strategy": "LongestFirst", "stride": 0},
                    padding={"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0, "pad_token": "<pad>"})
    folders = [
        put_here("llama", base),
        put_here("llama-string-merges", strings, named | {"tokenizer_class": "LlamaTokenizerFast", "legacy": True, "add_bos_token": True, "add_eos_token": True, "added_tokens_decoder": decoder}),
        put_here("llama-stale-sections", stale),
        put_here("llama-map-only", base, {}, special_tokens_map=named | {"additional_special_tokens": ["panda", token("<word>", single_word=True, __type="AddedToken")]}),
        put_here("llama-added-file", base, named, added_tokens={"<new>": 9000, "<word>": 9001}),
        put_here("llama-split-special", base, config | {"split_special_tokens": True}),
    ]
    # Holes in the ids of added tokens, and an order that is not theirs: the reference counts on itself.
    holes = changed(base)
    for row in holes["added_tokens"][3:]:
        row["id"] += 40
    holes["added_tokens"].insert(1, {"id": 5000, **token("<word>", special=False, normalized=True)})
    folders.append(put_here("holes", holes, config | {"extra_special_tokens": ["<one>", "cat"], "image_token": "<image>"}))
    flags = {
        **decoder,
        "900": token("<image>", lstrip=True, rstrip=True), "901": token("word", single_word=True, special=False), "902": token("NEW TOKEN", special=False, normalized=True),
        "903": token("caf\u00e9token", special=False, normalized=True), "904": token("long", special=False), "905": token("longlonger", special=False), "906": token(" x", special=False),
        "907": token("<lonely>", single_word=True), "908": token("<spaced>", rstrip=True), "909": token("<unk>", lstrip=True),
    }
    del flags[str(next(row["id"] for row in base["added_tokens"] if row["content"] == "<image>"))]
    folders.append(put_here("flags", base, config | {"added_tokens_decoder": flags}))
    lower = {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "}, {"type": "Lowercase"}]}
    folders.append(put_here("flags-normalized", changed(base, normalizer=lower), config | {"added_tokens_decoder": flags}))
    folders.append(put_here("lowercase", changed(base, normalizer={"type": "Lowercase"}, post_processor=None)))

    # GPT-2's form: ByteLevel alone.
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    gpt2 = json.loads(trained(lines, 1500, GPT2).to_str())
    gpt2["model"]["vocab"]["<|endoftext|>"] = len(gpt2["model"]["vocab"])
    gpt2["added_tokens"] = [{"id": gpt2["model"]["vocab"]["<|endoftext|>"], **token("<|endoftext|>")}]
    gpt2_config = {"pad_token": "<|endoftext|>"}
    folders.append(put_here("gpt2", changed(gpt2, pre_tokenizer=byte_level, post_processor=byte_level), gpt2_config))
    folders.append(put_here("gpt2-prefix-space", changed(gpt2, pre_tokenizer=byte_level | {"add_prefix_space": True}), gpt2_config))
    # Bytes that the vocabulary lacks, each kind of split, RoBERTa's surroundings.
    split = lambda **how: {"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex": GPT2}, "behavior": "Isolated", "invert": False},
                                                                {"type": "Split", "pattern": {"Regex": r"\p{N}|[aeiou]+"}, "invert": False} | how, byte_level]}
    roberta = {"type": "RobertaProcessing", "sep": ["e", gpt2["model"]["vocab"]["e"]], "cls": ["a", gpt2["model"]["vocab"]["a"]], "trim_offsets": True, "add_prefix_space": True}
    folders.append(put_here("removed", changed(gpt2, pre_tokenizer=split(behavior="Removed"), post_processor=roberta), gpt2_config))
    folders.append(put_here("removed-inverted", changed(gpt2, pre_tokenizer=split(behavior="Removed", invert=True)), gpt2_config))
    folders.append(put_here("isolated-twice", changed(gpt2, pre_tokenizer=split(behavior="Isolated")), gpt2_config))
    gone = set("\u00c3\u00e2\u00f0\u0120qz")
    for name, options in (("unknown-dropped", {}), ("unknown", {"unk_token": "<|endoftext|>"}), ("unknown-fused", {"unk_token": "<|endoftext|>", "fuse_unk": True, "end_of_word_suffix": "e"})):
        lacking = changed(gpt2, pre_tokenizer=byte_level)
        model = lacking["model"]
        model["vocab"] = {text: number for text, number in model["vocab"].items() if not gone & set(text)}
        model["merges"] = [pair for pair in model["merges"] if not gone & set("".join(pair))]
        model.update(options)
        folders.append(put_here(name, lacking, gpt2_config))
    return folders


def clip_folders(out, lines):
    made = os.path.join(out, "made")
    os.makedirs(made)
    blank = CLIPTokenizer()
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token="<|endoftext|>"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = blank.backend_tokenizer.normalizer, blank.backend_tokenizer.pre_tokenizer
    trainer = trainers.BpeTrainer(vocab_size=1500, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), end_of_word_suffix="</w>", show_progress=False)
    tokenizer.train_from_iterator(lines, trainer)
    tokenizer.model.save(made)
    with open(os.path.join(made, "vocab.json"), encoding="utf-8") as f:
        learnt = list(json.load(f))
    with open(os.path.join(made, "merges.txt"), encoding="utf-8") as f:
        merges = f.read()
    # OpenAI's order: the alphabet, the alphabet with </w>, what merges make, the two special tokens.
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = alphabet + [c + "</w>" for c in alphabet]
    tokens += [text for text in learnt if text not in set(tokens)] + ["<|startoftext|>", "<|endoftext|>"]
    vocab = {text: number for number, text in enumerate(tokens)}
    files = {"vocab.json": vocab, "merges.txt": merges}
    flags = {"__type": "AddedToken", "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    special = {"bos_token": flags | {"content": "<|startoftext|>"}, "eos_token": flags | {"content": "<|endoftext|>"}, "unk_token": flags | {"content": "<|endoftext|>"}, "pad_token": "<|endoftext|>"}
    published = special | {"add_prefix_space": False, "do_lower_case": True, "errors": "replace", "model_max_length": 77, "tokenizer_class": "CLIPTokenizer"}
    decoder = {str(vocab["<|startoftext|>"]): token("<|startoftext|>", normalized=True), str(vocab["<|endoftext|>"]): token("<|endoftext|>")}
    here = lambda name, more: put(out, name, "clip", files | more)
    folders = [
        here("clip", {"tokenizer_config.json": published, "special_tokens_map.json": special}),
        here("clip-bare", {}),
        here("clip-with-decoder", {"tokenizer_config.json": published | {"added_tokens_decoder": decoder, "unk_token": "<|endoftext|>"}, "special_tokens_map.json": special}),
        here("clip-other-pad", {"tokenizer_config.json": published | {"pad_token": "!"}}),
        here("clip-extra", {"tokenizer_config.json": published | {"extra_special_tokens": ["<image>", "panda"]}, "added_tokens.json": {"<Word>": 7000}}),
    ]
    # What transformers 5 saves: tokenizer.json alone, with sections of its last call.
    saved = CLIPTokenizer.from_pretrained(folders[0]["folder"])
    saved("a cat", padding="max_length", truncation=True, max_length=6)
    folder = os.path.join(out, "clip-saved-by-5")
    saved.save_pretrained(folder)
    assert not os.path.exists(os.path.join(folder, "vocab.json"))
    folders.append({"name": "clip-saved-by-5", "folder": folder, "kind": "clip"})
    # Both: tokenizer.json counts.
    both = os.path.join(out, "clip-both")
    shutil.copytree(folder, both)
    with open(os.path.join(both, "vocab.json"), "w", encoding="utf-8") as f:
        json.dump({"a": 0}, f)
    folders.append({"name": "clip-both", "folder": both, "kind": "clip"})
    lacking = {text: number for text, number in vocab.items() if not set("\u0120\u00e2q") & set(text)}
    kept = "\n".join(line for line in merges.split("\n") if not set("\u0120\u00e2q") & set(line) or line.startswith("#"))
    folders.append(put(out, "clip-unknown", "clip", {"vocab.json": lacking, "merges.txt": kept, "tokenizer_config.json": published}))
    return folders


def record(folder, texts, lengths, templates, large):
    cls = CLIPTokenizer if folder["kind"] == "clip" else PreTrainedTokenizerFast
    tokenizer = cls.from_pretrained(folder["folder"])
    whole = tokenizer(texts, padding=False, truncation=False).input_ids
    if folder["name"] in ("llama", "clip"):
        folder["large"] = [tokenizer(text, padding=False, truncation=False).input_ids for text in large]
    padded = []
    for i, text in enumerate(texts if "large" in folder else texts[:300]):
        encoded = tokenizer(text, padding="max_length", truncation=True, max_length=lengths[i % len(lengths)])
        assert encoded.attention_mask == sorted(encoded.attention_mask, reverse=True)
        padded.append([encoded.input_ids, sum(encoded.attention_mask)])
    folder |= {"whole": whole, "padded": padded, "pad_id": tokenizer.pad_token_id}
    folder["templates"] = {name: tokenizer(text, padding=False, truncation=False).input_ids for name, text in templates.items()}
    wanted = SPECIAL + ["<image>", "<pad>", "<|startoftext|>", "<|endoftext|>", "\u0120a", "a</w>", "<nobody>", "\u0120panda"]
    known = tokenizer.get_vocab()
    folder["tokens"] = {text: known.get(text, -1) for text in wanted}


def flips(pattern, blocks):
    """Code points where matching `pattern` begins or ends, ascending. REQUIRES: it matches single characters alone."""
    split = pre_tokenizers.Split(Regex(pattern), "removed", invert=True)
    out, last = [], False
    for block in blocks:
        matched = [False] * len(block)
        for _, (begin, end) in split.pre_tokenize_str(block):
            matched[begin:end] = [True] * (end - begin)
        for c, now in zip(block, matched):
            if now != last:
                out.append(ord(c))
                last = now
    return out


def characters(rng, texts):
    """{"flips": {pattern: [code point]}, "forms": [[text, NFC, lower case]], "splits": [{"pattern", "pieces": [[characters]]}] of the texts}."""
    codes = [code for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    blocks = ["".join(map(chr, codes[i:i + 8192])) for i in range(0, len(codes), 8192)]
    patterns = [r"\p{L}", r"\p{N}", r"\s", r"\p{M}", r"\p{P}", r"\p{S}", r"\p{Lu}", r"\p{Ll}", r"\d", r"[^\S\p{Z}]"]
    nfc, lowercase = normalizers.NFC(), normalizers.Lowercase()
    blocks256 = ("".join(map(chr, codes[i:i + 256])) for i in range(0, len(codes), 256))
    forms = [text for text in blocks256 if nfc.normalize_str(text) != text or lowercase.normalize_str(text) != text]
    marks = [chr(code) for code in codes if unicodedata.combining(chr(code))] + ["\u1ab0", "\u0897", "\U00010d69", "\U00011935", "\U00011930", "\u1161", "\u11a8"]
    bases = [chr(code) for code in codes if unicodedata.decomposition(chr(code))][::3] + list("aeiouAEIOU \u1100\u1102\uac00\u0b47\u0f71\u03b9")
    for _ in range(1500):
        forms.append("".join(rng.choice(marks if rng.random() < 0.6 else bases) for _ in range(rng.randint(1, 8))))
    splits = []
    for pattern in [LLAMA3, GPT2, CLIP] + OTHER_PATTERNS:
        split = pre_tokenizers.Split(Regex(pattern), "isolated")
        splits.append({"pattern": pattern, "pieces": [[end - begin for _, (begin, end) in split.pre_tokenize_str(text)] for text in texts]})
    return {"flips": {pattern: flips(pattern, blocks) for pattern in patterns}, "splits": splits,
            "forms": [[text, nfc.normalize_str(text), lowercase.normalize_str(text)] for text in forms]}


def write(out, name, content):
    with open(os.path.join(out, name), "w", encoding="utf-8") as f:
        json.dump(content, f)


def tokenizers(out, rng, texts):
    """cases.json and its folders."""
    logging.set_verbosity_error()
    lines = corpus(rng)
    templates = template_texts()
    lines += [text.format("a red panda walks in the rain") for text in templates.values()] * 20
    filled = {name: text.format("a red panda\nwalks") for name, text in templates.items()}
    lengths = [2, 3, 16, 77, 128, 351]
    large = ["a" * 200000, "x" + " " * 200000 + "y", "".join(rng.choice("abcdehilnorst") for _ in range(200000)), "\u4e2d\u0301" * 50000, "'s" * 100000]
    folders = byte_level_folders(out, lines) + clip_folders(out, lines)
    for folder in folders:
        record(folder, texts, lengths, filled, large)
    write(out, "cases.json", {"texts": texts, "lengths": lengths, "large": large, "folders": folders, "templates": filled})


def main():
    out, what, seed = sys.argv[1], sys.argv[2], int(sys.argv[3])
    rng = random.Random(seed)
    texts = awkward_texts(rng)
    if what == "tokenizers":
        tokenizers(out, rng, texts)
    else:
        write(out, "characters.json", characters(rng, texts) | {"texts": texts})


main()
