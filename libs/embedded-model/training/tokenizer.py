"""Trains the tokenizer on the captions: byte-level BPE with Qwen's pre-tokenizer, special tokens and chat template.

python tokenizer.py OUT_DIR
"""
import json
import random
import sys
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Tokenizer

import scenes

VOCABULARY = 768
CAPTIONS = 20_000
WORD_REPEATS = 2_000
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHAT_TEMPLATE = (
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}{%- endif %}"
)
# A run of Chinese has no spaces, so merges are learned from single words: whole phrases would become tokens otherwise.
WORDS_ZH = [
    "背景", "一个", "有一个", "只有", "一幅", "的", "上的", "在", "画", "简单", "干净", "图画", "画面", "里", "整个", "都是",
    "没有", "其他", "东西", "位置", "除此之外", "请", "帮我", "它的", "这是",
]


def word_list() -> list[str]:
    words = list(WORDS_ZH) + list(scenes.COLOURS_ZH.values())
    for table in (scenes.SHAPES_ZH, scenes.POSITIONS_ZH, scenes.SIZES_ZH):
        words += [w for choices in table.values() for w in choices if w]
    return words + ["user\n", "assistant\n", "。", "\uff0c"]


def main() -> None:
    out = Path(sys.argv[1])
    rng = random.Random(5)
    english = [scenes.caption_en(rng, scenes.draw_scene(rng), long=rng.random() < 0.3) for _ in range(CAPTIONS)]
    core = Tokenizer(models.BPE())
    core.normalizer = normalizers.NFC()
    core.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY - len(SPECIAL), initial_alphabet=alphabet, min_frequency=20, show_progress=False)
    core.train_from_iterator(english + word_list() * WORD_REPEATS, trainer)
    core.add_special_tokens(SPECIAL)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=CHAT_TEMPLATE,
        model_max_length=512, padding_side="right",
    )
    fast.save_pretrained(out)
    body = json.loads((out / "tokenizer.json").read_text())
    (out / "vocab.json").write_text(json.dumps(body["model"]["vocab"], ensure_ascii=False))
    merges = [m if isinstance(m, str) else " ".join(m) for m in body["model"]["merges"]]
    (out / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    config = json.loads((out / "tokenizer_config.json").read_text())
    config["tokenizer_class"] = "Qwen2Tokenizer"
    (out / "tokenizer_config.json").write_text(json.dumps(config, ensure_ascii=False, indent=2) + "\n")

    loaded = Qwen2Tokenizer.from_pretrained(out)
    for long in (False, True):
        for language, caption in scenes.CAPTIONS.items():
            lengths = []
            for _ in range(2000):
                text = "<|im_start|>user\n" + caption(rng, scenes.draw_scene(rng), long) + "<|im_end|>\n<|im_start|>assistant\n"
                ids = loaded(text).input_ids
                if ids != fast(text).input_ids:
                    raise RuntimeError(f"Qwen2Tokenizer reads {text!r} another way")
                lengths.append(len(ids))
            print(language, "long" if long else "short", "captions take", min(lengths), "to", max(lengths), "tokens")
    print(len(loaded), "tokens")


if __name__ == "__main__":
    main()
