//! What is written to disk and read back: encoding and decoding alone. Neither files nor threads nor clocks are known
//! here, and all bytes that come in are foreign ones.

pub mod aof;
pub mod crc64;
pub mod rdb;
