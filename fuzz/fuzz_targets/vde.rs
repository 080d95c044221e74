//! Bytes of anybody, to the control socket of a VDE door.
#![no_main]

use libfuzzer_sys::fuzz_target;
use machinist_network::vde::{RequestReader, answer};

fuzz_target!(|input: (u8, &[u8])| {
    let (piece, bytes) = input;
    let mut reader = RequestReader::default();
    for piece in bytes.chunks(usize::from(piece) + 1) {
        let room = reader.room();
        let count = piece.len().min(room.len());
        room[..count].copy_from_slice(&piece[..count]);
        reader.fill(count);
        match reader.request() {
            Ok(None) => assert!(!reader.room().is_empty()),
            Ok(Some(request)) => {
                assert!(request.path.is_absolute());
                let _ = answer(&request.path);
                return;
            }
            Err(_) => return,
        }
    }
});
