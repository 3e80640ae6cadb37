"""Trains the SentencePiece unigram model and saves it as a T5 tokenizer.

From captions alone unigram finds 170 pieces and splits "circle" into letters, because each word occurs in one spelling
only. So every word is repeated among punctuation, in lower case and capitalised, and some ordinary words and the whole
alphabet are added: then each caption word is one piece.
"""
import json
import os
import random

import scenes

MAX_LENGTH = 128
_OTHER_WORDS = """ball box cube diamond heart ring disc black white red green blue yellow orange purple cyan pink brown
gray grey beige dark light bright sky sea night day dog cat man woman person car walks runs moves flies slowly quickly fast
slow the a an in of at with and into from to is are video photo worst quality inconsistent motion blurry jittery distorted
left right up down top bottom center around bounces grows shrinks spins rotates rises falls slides floats still two three
one big tiny huge small large background""".split()
_OTHER_LINES = [
    "The quick brown fox jumps over the lazy dog 0123456789 times, isn't it? Yes! (a-b): x; y / z",
    "worst quality, inconsistent motion, blurry, jittery, distorted",
    "a photo of the sea, a dog walks slowly in a city at night",
    "ABCDEFGHIJKLMNOPQRSTUVWXYZ abcdefghijklmnopqrstuvwxyz"]


def train(workspace, captions=6000):
    import sentencepiece
    from transformers import T5TokenizerFast
    folder = workspace.tokenizer
    os.makedirs(folder, exist_ok=True)
    rng = random.Random(5)
    lines = [scenes.written_by_hand(scenes.caption(scenes.sample(rng), rng), rng)
             for _ in range(captions)]
    words = {word.strip(".,") for line in lines for word in line.split()} | set(_OTHER_WORDS)
    lines += _OTHER_LINES * 20
    for w in sorted(words):
        capital = w[0].upper() + w[1:]
        lines += [f"{w} {w}, {w}. {w}s {w}; {capital}! {capital},"] * 20
    corpus = os.path.join(folder, "corpus.txt")
    with open(corpus, "w", encoding="utf-8") as file:
        file.write("\n".join(lines))
    sentencepiece.SentencePieceTrainer.train(
        input=corpus, model_prefix=os.path.join(folder, "spiece"), vocab_size=412,
        model_type="unigram", pad_id=0, eos_id=1, unk_id=2, bos_id=-1, pad_piece="<pad>",
        eos_piece="</s>", unk_piece="<unk>", hard_vocab_limit=False, num_threads=1,
        minloglevel=2, character_coverage=1.0)
    os.remove(corpus)
    with open(os.path.join(folder, "tokenizer_config.json"), "w", encoding="utf-8") as file:
        json.dump({"tokenizer_class": "T5Tokenizer", "extra_ids": 100,
                   "model_max_length": MAX_LENGTH, "eos_token": "</s>", "pad_token": "<pad>",
                   "unk_token": "<unk>"}, file)
    tokens = T5TokenizerFast.from_pretrained(folder, model_max_length=MAX_LENGTH)
    longest = max(len(tokens(line).input_ids) for line in lines[:captions])
    print(f"tokenizer: {len(tokens)} tokens, longest caption {longest}", flush=True)


def load(workspace):
    from transformers import T5TokenizerFast
    return T5TokenizerFast.from_pretrained(workspace.tokenizer, model_max_length=MAX_LENGTH)


def padded_ids(tokens, texts):
    """The ids as LTXPipeline makes them: [B, 128], padded and cut."""
    import torch
    return torch.tensor(tokens(texts, padding="max_length", max_length=MAX_LENGTH,
                               truncation=True).input_ids)
