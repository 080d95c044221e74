//! From the name of an image to something bootable, cached by content.
