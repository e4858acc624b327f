/** From what the decoder gives to what a caller may see: bytes, and only when there is a picture in them. */

const CHANNELS = 3;
/** In steps of 8 bits: a channel that varies less is one flat value. */
const BLANK_DEVIATION = 1;

/** Not one NaN or infinity. */
export function isFinitePicture(values: Float32Array): boolean {
  // A sum is finite only if every term is: values of this size cannot overflow a float64.
  let sum = 0;
  for (const value of values) sum += value;
  return Number.isFinite(sum);
}

/** [3, height, width] in -1..1 to interleaved 8-bit RGB; rounds and clips as diffusers does, a half to the even side. */
export function toRgb(image: Float32Array): Uint8ClampedArray<ArrayBuffer> {
  const pixelCount = image.length / CHANNELS;
  const rgb = new Uint8ClampedArray(image.length);
  for (let channel = 0; channel < CHANNELS; channel++) {
    const plane = image.subarray(channel * pixelCount, (channel + 1) * pixelCount);
    for (let i = 0; i < pixelCount; i++) {
      rgb[i * CHANNELS + channel] = Math.fround(Math.fround(Math.fround((plane[i] ?? 0) / 2) + 0.5) * 255);
    }
  }
  return rgb;
}

/** One flat colour: nothing was drawn. */
export function isBlank(rgb: Uint8ClampedArray): boolean {
  for (let channel = 0; channel < CHANNELS; channel++) if (deviation(rgb, channel) >= BLANK_DEVIATION) return false;
  return true;
}

function deviation(rgb: Uint8ClampedArray, channel: number): number {
  const count = rgb.length / CHANNELS;
  let sum = 0;
  let squares = 0;
  for (let i = channel; i < rgb.length; i += CHANNELS) {
    const value = rgb[i] ?? 0;
    sum += value;
    squares += value * value;
  }
  return Math.sqrt(Math.max(0, squares / count - (sum / count) ** 2));
}
