//! Other people's programs at our VDE sockets.
