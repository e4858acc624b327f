"""From a prompt to caption features, as Z-Image reads them: its chat template, its text encoder's last layer but one. Prompts used lately
are kept."""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .device import new_stream, on_stream
from .errors import prompt_too_long


@dataclass(frozen=True)
class Caption:
    features: Tensor
    """[tokens, features], on the transformer's device in its precision."""
    token_count: int
    """With the template."""


class CaptionReader:
    """For two threads: one that draws, and one that reads the next prompt ahead."""

    def __init__(self, tokenizer: Any, encoder: Any, *, max_tokens: int, device: torch.device, dtype: torch.dtype, capacity: int) -> None:
        self._tokenizer, self._encoder = tokenizer, encoder
        self._max_tokens = max_tokens
        self._device, self._dtype = device, dtype
        self._capacity = capacity
        self._seen: OrderedDict[str, Caption] = OrderedDict()
        self._seeing = threading.Lock()
        self._encoding = threading.Lock()
        self._side_stream = new_stream(encoder.device)

    def read(self, prompt: str) -> Caption:
        """INVALID_ARGUMENT/PROMPT_TOO_LONG; never cut."""
        return self._recall(prompt) or self._read_anew(prompt)

    def read_ahead(self, prompt: str) -> None:
        """On another thread: a GPU goes on with its steps meanwhile, as what this tells it goes on a stream of its own."""
        if self._capacity > 0 and self._recall(prompt) is None:
            with on_stream(self._side_stream):
                self._read_anew(prompt)

    def forget(self) -> None:
        with self._seeing:
            self._seen.clear()

    def _recall(self, prompt: str) -> Caption | None:
        with self._seeing:
            caption = self._seen.get(prompt)
            if caption is not None:
                self._seen.move_to_end(prompt)
            return caption

    def _read_anew(self, prompt: str) -> Caption:
        with self._encoding:
            caption = self._recall(prompt)  # the other thread may just have read it
            if caption is None:
                caption = self._encode(prompt)
                with self._seeing:
                    self._seen[prompt] = caption
                    while len(self._seen) > self._capacity:
                        self._seen.popitem(last=False)
            return caption

    @torch.inference_mode()
    def _encode(self, prompt: str) -> Caption:
        text = self._tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True, enable_thinking=True
        )
        # Without padding: the encoder is causal, what is right of a token does not touch it.
        ids = self._tokenizer(text, return_tensors="pt").input_ids
        token_count = ids.shape[1]
        if token_count > self._max_tokens:
            raise prompt_too_long(token_count, self._max_tokens)
        states = self._encoder(input_ids=ids.to(self._encoder.device), output_hidden_states=True).hidden_states
        features = states[-2][0].to(self._device, self._dtype)
        if self._side_stream is not None:
            torch.cuda.current_stream(self._encoder.device).synchronize()  # the other thread is on another stream
        return Caption(features, token_count)
