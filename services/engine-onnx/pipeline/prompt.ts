/** From a prompt to token ids: the chat template round it (one user turn, the assistant's begun), then the folder's own tokenizer. */
import { Tokenizer } from '@huggingface/tokenizers';

export type EncodePrompt = (prompt: string) => number[];

/** `tokenizer` and `config`: the contents of tokenizer.json and tokenizer_config.json. */
export function promptEncoder(tokenizer: object, config: object): EncodePrompt {
  const loaded = new Tokenizer(tokenizer, config);
  return (prompt) => loaded.encode(`<|im_start|>user\n${prompt}<|im_end|>\n<|im_start|>assistant\n`, { add_special_tokens: false }).ids;
}
