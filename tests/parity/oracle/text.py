"""Tiny tokenizers, trained on the spot, and tiny text encoders with random weights.

Each tokenizer has the exact file format and special ids of the published one it stands for.
"""
import collections
import json
import os

from .prompts import corpus


def t5_tokenizer(work, max_length):
    """A SentencePiece unigram model with T5's ids (pad 0, eos 1, unk 2) and its 100 sentinels.

    Returns the tokenizer and the path of its spiece.model.
    """
    import sentencepiece
    from transformers import T5TokenizerFast
    os.makedirs(work, exist_ok=True)
    text = os.path.join(work, "corpus.txt")
    with open(text, "w", encoding="utf-8") as file:
        file.write("\n".join(corpus()))
    sentencepiece.SentencePieceTrainer.train(
        input=text, model_prefix=os.path.join(work, "spiece"), vocab_size=420,
        model_type="unigram", pad_id=0, eos_id=1, unk_id=2, bos_id=-1, pad_piece="<pad>",
        eos_piece="</s>", unk_piece="<unk>", hard_vocab_limit=False, num_threads=1, minloglevel=2)
    with open(os.path.join(work, "tokenizer_config.json"), "w", encoding="utf-8") as file:
        json.dump({"tokenizer_class": "T5Tokenizer", "extra_ids": 100,
                   "model_max_length": max_length, "eos_token": "</s>", "pad_token": "<pad>",
                   "unk_token": "<unk>"}, file)
    tokenizer = T5TokenizerFast.from_pretrained(work, model_max_length=max_length)
    return tokenizer, os.path.join(work, "spiece.model")


def t5_encoder(rng, tokenizer, d_model):
    from transformers import T5Config, T5EncoderModel
    heads = rng.choice([2, 4])
    return T5EncoderModel(T5Config(
        vocab_size=len(tokenizer) + 13, d_model=d_model, d_kv=8, d_ff=rng.choice([40, 64]),
        num_heads=heads, num_layers=rng.choice([2, 3]), num_decoder_layers=1,
        feed_forward_proj="gated-gelu", relative_attention_num_buckets=32,
        relative_attention_max_distance=128, dropout_rate=0.1, layer_norm_epsilon=1e-6,
        tie_word_embeddings=False))


def t5(rng, work, max_length, d_model):
    """Tokenizer, encoder, and the files save_pretrained does not write, by subfolder."""
    tokenizer, spiece = t5_tokenizer(os.path.join(work, "t5tok"), max_length)
    return tokenizer, t5_encoder(rng, tokenizer, d_model), {"tokenizer": [spiece]}


def _merges(words, count):
    """The pairs that byte-pair training joins, in its order: most frequent first, of equals the least. The library's trainer
    breaks ties in another way each time where words have an end of their own.

    words: how often there is each, as a tuple of symbols.
    """
    left = words
    merges = []
    while len(merges) < count:
        pairs = collections.Counter()
        for word, times in left.items():
            for pair in zip(word, word[1:]):
                pairs[pair] += times
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        joined = collections.Counter()
        for word, times in left.items():
            symbols, at = [], 0
            while at < len(word):
                is_best = word[at:at + 2] == best
                symbols.append(best[0] + best[1] if is_best else word[at])
                at += 2 if is_best else 1
            joined[tuple(symbols)] += times
        left = joined
    return merges


def clip(rng, work, dim):
    """CLIP's byte-pair tokenizer (vocab.json and merges.txt) and a tiny CLIPTextModel."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
    os.makedirs(work, exist_ok=True)
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    pattern = Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")
    bpe.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(pattern, "removed", True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    words = collections.Counter()
    for line, times in collections.Counter(corpus()).items():
        for piece, _ in bpe.pre_tokenizer.pre_tokenize_str(bpe.normalizer.normalize_str(line)):
            words[(*piece[:-1], piece[-1] + "</w>")] += times
    merges = _merges(words, 600)
    # CLIP's order: bytes, bytes with the end-of-word mark, merges, then the two special tokens (the highest ids).
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {c: i for i, c in enumerate(alphabet + [c + "</w>" for c in alphabet])}
    for first, second in merges:
        vocab.setdefault(first + second, len(vocab))
    vocab["<|startoftext|>"] = len(vocab)
    vocab["<|endoftext|>"] = len(vocab)
    with open(os.path.join(work, "vocab.json"), "w", encoding="utf-8") as file:
        json.dump(vocab, file, ensure_ascii=False)
    with open(os.path.join(work, "merges.txt"), "w", encoding="utf-8") as file:
        file.write("#version: 0.2\n" + "\n".join(f"{a} {b}" for a, b in merges) + "\n")
    tokenizer = CLIPTokenizer(vocab=dict(vocab), merges=list(merges), model_max_length=77)
    eos = vocab["<|endoftext|>"]
    config = CLIPTextConfig(
        vocab_size=len(vocab), hidden_size=dim, intermediate_size=dim * 2, num_attention_heads=4,
        num_hidden_layers=rng.choice([2, 3]), projection_dim=dim, max_position_embeddings=77,
        hidden_act="quick_gelu", bos_token_id=eos - 1, pad_token_id=1,
        eos_token_id=2)  # 2 as in the published files: pooling then takes the argmax of the ids
    files = [os.path.join(work, name) for name in ("vocab.json", "merges.txt")]
    return tokenizer, CLIPTextModel(config), files


def llama_tokenizer(work):
    """Byte-level BPE shaped like LLaMA-3's tokenizer.json, with its header tokens, <image> and <pad>."""
    from tokenizers import (Regex, Tokenizer, decoders, models, pre_tokenizers, processors,
                            trainers)
    from transformers import PreTrainedTokenizerFast
    os.makedirs(work, exist_ok=True)
    bpe = Tokenizer(models.BPE(ignore_merges=True))
    pattern = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
               r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
    bpe.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(pattern), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    bpe.decoder = decoders.ByteLevel()
    text = corpus() + ["\n\n"] * 200 + ["system"] * 200
    bpe.train_from_iterator(text, trainers.BpeTrainer(
        vocab_size=1000, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    bpe.add_special_tokens(["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>",
                            "<|end_header_id|>", "<|eot_id|>", "<image>", "<pad>"])
    bos = bpe.token_to_id("<|begin_of_text|>")
    bpe.post_processor = processors.TemplateProcessing(
        single="<|begin_of_text|> $A", pair="<|begin_of_text|> $A <|begin_of_text|> $B",
        special_tokens=[("<|begin_of_text|>", bos)])
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<|begin_of_text|>", eos_token="<|end_of_text|>",
        pad_token="<pad>", padding_side="right", model_max_length=2048)


def llama_config(rng, tokenizer, dim):
    from transformers import LlamaConfig
    return LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=dim, intermediate_size=dim * 2,
        num_hidden_layers=rng.choice([4, 5]), num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=4096, rms_norm_eps=1e-5, hidden_act="silu", attention_bias=False,
        tie_word_embeddings=False, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        rope_parameters={"rope_type": "default", "rope_theta": 500000.0})
