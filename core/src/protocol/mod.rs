//! The wire format: requests in, replies out. Knows no command.
