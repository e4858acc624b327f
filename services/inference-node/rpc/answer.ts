/** An answer as it travels: the pictures go from the encoder's buffers straight into the frame that is sent. */
import { generation } from '#contracts';
import { lengthDelimited, Pieces } from '#grpc';

const { GenerateResponse, Image } = generation;
/** Field numbers of generation.proto. */
const IMAGES_FIELD = 1;
const DATA_FIELD = 1;
const NO_BYTES = new Uint8Array(0);

/** The bytes of `response`. Its pictures must not change until they have been sent. */
export function answerInPieces(response: generation.GenerateResponse): Pieces {
  const pictures = response.images.flatMap((image) => {
    const rest = Image.encode({ ...image, data: NO_BYTES }).finish();
    return lengthDelimited(IMAGES_FIELD, [...lengthDelimited(DATA_FIELD, [image.data]), rest]);
  });
  return new Pieces([...pictures, GenerateResponse.encode({ ...response, images: [] }).finish()]);
}
