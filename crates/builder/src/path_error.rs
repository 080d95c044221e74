//! Errors of the file system, with the path.

pub(crate) use machinist_sys::path_error::At;
pub use machinist_sys::path_error::PathError;
