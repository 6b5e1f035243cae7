//! Messages of gRPC, in buffers that are small at first.

use prost::Message;
use std::marker::PhantomData;
use tonic::codec::{self, BufferSettings};
use tonic_prost::ProstCodec;

/// tonic's own has 8 KiB for each message, twice for each request: many times what a small model reads and writes.
pub struct Codec<Encode, Decode>(PhantomData<(Encode, Decode)>);

/// Bytes of a buffer at first, for metadata and small tensors. Of what is larger, what is read has its size at once; what is
/// written grows to it.
const BUFFER: usize = 256;
/// From so many bytes on what is encoded is sent; as tonic has it.
const YIELD: usize = 32 << 10;

impl<Encode, Decode> Default for Codec<Encode, Decode> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<Encode: Message + Send + 'static, Decode: Message + Default + Send + 'static> codec::Codec
    for Codec<Encode, Decode>
{
    type Encode = Encode;
    type Decode = Decode;
    type Encoder = <ProstCodec<Encode, Decode> as codec::Codec>::Encoder;
    type Decoder = <ProstCodec<Encode, Decode> as codec::Codec>::Decoder;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<Encode, Decode>::raw_encoder(BufferSettings::new(BUFFER, YIELD))
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<Encode, Decode>::raw_decoder(BufferSettings::new(BUFFER, YIELD))
    }
}
