//! As much of the X11 protocol as a picture needs. The byte order is ours to choose: the little one.

use super::cookie::Cookie;

/// What a server tells of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setup {
    /// For each depth how many bits a pixel takes, and to how many a row is filled up.
    formats: Vec<(u8, u8, u8)>,
    /// Whether a pixel's highest byte comes first.
    big: bool,
    pub(super) screens: Vec<Screen>,
}

/// One of its screens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Screen {
    root: u32,
    pub(super) width: u16,
    pub(super) height: u16,
    depth: u8,
    /// Which bits of a pixel are its red, green and blue. None where pixels are numbers in a palette.
    masks: Option<[u32; 3]>,
}

const GET_IMAGE: u8 = 73;
const Z_PIXMAP: u8 = 2;
/// The classes of visuals whose pixels are colours.
const TRUE_COLOR: u8 = 4;
const DIRECT_COLOR: u8 = 5;

/// The first thing that is said to a server.
pub(super) fn hello(cookie: Option<&Cookie>) -> Vec<u8> {
    let (name, data) = cookie.map_or((&[][..], &[][..]), |it| (&it.name, &it.data));
    let mut bytes = vec![b'l', 0];
    // The protocol's version is 11.0.
    for word in [11, 0, length(name), length(data), 0] {
        bytes.extend(word.to_le_bytes());
    }
    for part in [name, data] {
        bytes.extend(part);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

fn length(bytes: &[u8]) -> u16 {
    u16::try_from(bytes.len()).unwrap_or(u16::MAX)
}

/// How many bytes follow the first eight of a server's answer.
pub(super) fn setup_length(head: [u8; 8]) -> usize {
    4 * usize::from(u16::from_le_bytes([head[6], head[7]]))
}

/// Reads what follows those.
pub(super) fn setup(body: &[u8]) -> Option<Setup> {
    let mut at = Cursor(body);
    at.skip(16)?;
    let vendor = usize::from(at.u16()?);
    at.skip(2)?;
    let (screens, formats) = (at.u8()?, at.u8()?);
    let big = at.u8()? == 1;
    at.skip(9)?;
    at.skip(vendor.next_multiple_of(4))?;
    let mut setup = Setup {
        formats: Vec::new(),
        big,
        screens: Vec::new(),
    };
    for _ in 0..formats {
        setup.formats.push((at.u8()?, at.u8()?, at.u8()?));
        at.skip(5)?;
    }
    for _ in 0..screens {
        setup.screens.push(screen(&mut at)?);
    }
    Some(setup)
}

fn screen(at: &mut Cursor<'_>) -> Option<Screen> {
    let root = at.u32()?;
    at.skip(16)?;
    let (width, height) = (at.u16()?, at.u16()?);
    at.skip(8)?;
    let visual = at.u32()?;
    at.skip(2)?;
    let depth = at.u8()?;
    let mut masks = None;
    for _ in 0..at.u8()? {
        at.skip(2)?;
        let visuals = at.u16()?;
        at.skip(4)?;
        for _ in 0..visuals {
            let (id, class) = (at.u32()?, at.u8()?);
            at.skip(3)?;
            let colours = [at.u32()?, at.u32()?, at.u32()?];
            at.skip(4)?;
            if id == visual && matches!(class, TRUE_COLOR | DIRECT_COLOR) {
                masks = Some(colours);
            }
        }
    }
    Some(Screen {
        root,
        width,
        height,
        depth,
        masks,
    })
}

/// Asks for all of a screen, with every window on it.
pub(super) fn get_image(screen: &Screen) -> Vec<u8> {
    let mut bytes = vec![GET_IMAGE, Z_PIXMAP];
    bytes.extend(5_u16.to_le_bytes());
    bytes.extend(screen.root.to_le_bytes());
    for word in [0, 0, screen.width, screen.height] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(u32::MAX.to_le_bytes());
    bytes
}

/// Bytes of a picture that are too many: a screen of 16384 times 8192 pixels has no more.
const MOST: usize = 512 << 20;

/// How many bytes of picture follow the first 32 of the answer. None where that is more than a
/// screen of this size can have, or than we take.
pub(super) fn image_length(head: &[u8; 32], screen: &Screen) -> Option<usize> {
    let words = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
    let length = usize::try_from(words).ok()?.checked_mul(4)?;
    // Four bytes a pixel, and each row filled up.
    let most = (usize::from(screen.width) + 8) * usize::from(screen.height) * 4;
    (length <= most.min(MOST)).then_some(length)
}

/// Makes red, green and blue of a picture's pixels.
pub(super) fn rgb(setup: &Setup, screen: &Screen, pixels: &[u8]) -> Option<Vec<u8>> {
    let masks = screen.masks?;
    let format = setup
        .formats
        .iter()
        .find(|(depth, ..)| *depth == screen.depth);
    let &(_, bits, pad) = format?;
    let bytes = match bits {
        8 | 16 | 24 | 32 => usize::from(bits / 8),
        _ => return None,
    };
    let (width, height) = (usize::from(screen.width), usize::from(screen.height));
    let pad = usize::from(pad.max(8)) / 8;
    let row = (width * bytes).next_multiple_of(pad);
    let mut rgb = Vec::with_capacity(pixels.len() / bytes * 3);
    for line in pixels.chunks(row.max(1)).take(height) {
        for pixel in line.get(..width * bytes)?.chunks_exact(bytes) {
            let value = value(pixel, setup.big);
            rgb.extend(masks.map(|mask| part(value, mask)));
        }
    }
    (rgb.len() == width * height * 3).then_some(rgb)
}

fn value(pixel: &[u8], big: bool) -> u32 {
    let join = |value: u32, byte: &u8| value << 8 | u32::from(*byte);
    if big {
        pixel.iter().fold(0, join)
    } else {
        pixel.iter().rev().fold(0, join)
    }
}

/// The bits of `value` that `mask` marks, as a number of which 255 is the most.
fn part(value: u32, mask: u32) -> u8 {
    let shift = mask.trailing_zeros().min(31);
    let most = u64::from(mask >> shift).max(1);
    let part = u64::from((value & mask) >> shift);
    u8::try_from(part * 255 / most).unwrap_or(u8::MAX)
}

/// Reads numbers off bytes.
struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    fn skip(&mut self, count: usize) -> Option<()> {
        self.0 = self.0.get(count..)?;
        Some(())
    }

    fn u8(&mut self) -> Option<u8> {
        self.take().map(u8::from_le_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn two_pixels(depth: u8, bits: u8, masks: [u32; 3]) -> (Setup, Screen) {
        let screen = Screen {
            root: 1,
            width: 2,
            height: 1,
            depth,
            masks: Some(masks),
        };
        let setup = Setup {
            formats: vec![(1, 1, 32), (depth, bits, 32)],
            big: false,
            screens: vec![screen.clone()],
        };
        (setup, screen)
    }

    #[test]
    fn colours_are_found_in_pixels() {
        let (setup, screen) = two_pixels(24, 32, [0xff_0000, 0xff00, 0xff]);
        let pixels = [3, 2, 1, 0, 6, 5, 4, 0];
        assert_eq!(rgb(&setup, &screen, &pixels).unwrap(), [1, 2, 3, 4, 5, 6]);
        let (setup, screen) = two_pixels(16, 16, [0xf800, 0x7e0, 0x1f]);
        let pixels = [0x00, 0xf8, 0xff, 0xff];
        let found = rgb(&setup, &screen, &pixels).unwrap();
        assert_eq!(found, [255, 0, 0, 255, 255, 255]);
        assert_eq!(rgb(&setup, &screen, &pixels[..3]), None);
    }

    #[test]
    fn names_and_keys_are_filled_up() {
        assert_eq!(hello(None).len(), 12);
        let cookie = Cookie {
            name: b"MIT-MAGIC-COOKIE-1".to_vec(),
            data: vec![7; 16],
        };
        assert_eq!(hello(Some(&cookie)).len(), 12 + 20 + 16);
    }

    proptest! {
        #[test]
        fn any_answer_is_read(body: Vec<u8>, head: [u8; 32], pixels: Vec<u8>) {
            if let Some(setup) = setup(&body) {
                for screen in &setup.screens {
                    image_length(&head, screen);
                    rgb(&setup, screen, &pixels);
                }
            }
        }
    }
}
