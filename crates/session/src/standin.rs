//! Stand-ins until the neighbours' types are there: `Lab` will be `machinist_lab::Lab`, `Agent`
//! `machinist_guest::Agent`.

/// `machinist_lab::Lab`
#[derive(Debug)]
pub struct Lab;
/// `machinist_guest::Agent`
#[derive(Debug)]
pub struct Agent;
