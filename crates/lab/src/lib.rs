//! The lab file: types, parsing, validation, schema.
