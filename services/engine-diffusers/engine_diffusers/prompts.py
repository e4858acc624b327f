"""From a prompt to caption features, as Z-Image reads them: its chat template, its text encoder's last layer but one. Prompts used lately
are kept."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .errors import prompt_too_long


@dataclass(frozen=True)
class Caption:
    features: Tensor
    """[tokens, features], on the transformer's device in its precision."""
    token_count: int
    """With the template."""


class CaptionReader:
    def __init__(self, tokenizer: Any, encoder: Any, *, max_tokens: int, device: torch.device, dtype: torch.dtype, capacity: int) -> None:
        self._tokenizer, self._encoder = tokenizer, encoder
        self._max_tokens = max_tokens
        self._device, self._dtype = device, dtype
        self._capacity = capacity
        self._seen: OrderedDict[str, Caption] = OrderedDict()

    def read(self, prompt: str) -> Caption:
        """INVALID_ARGUMENT/PROMPT_TOO_LONG; never cut."""
        caption = self._seen.get(prompt)
        if caption is None:
            caption = self._encode(prompt)
        self._seen[prompt] = caption
        self._seen.move_to_end(prompt)
        while len(self._seen) > self._capacity:
            self._seen.popitem(last=False)
        return caption

    def forget(self) -> None:
        self._seen.clear()

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
        return Caption(states[-2][0].to(self._device, self._dtype), token_count)
