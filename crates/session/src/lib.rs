//! A running lab and the socket that scripts talk to.
