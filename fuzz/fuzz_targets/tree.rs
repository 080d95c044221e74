//! Records of a tree that is none.
#![no_main]

use libfuzzer_sys::fuzz_target;
use machinist_wire::tree::Decoder;

fuzz_target!(|bytes: &[u8]| {
    let mut decoder = Decoder::default();
    for piece in bytes.chunks(97) {
        decoder.push(piece);
        while let Ok(Some(_)) = decoder.next_item() {}
    }
});
