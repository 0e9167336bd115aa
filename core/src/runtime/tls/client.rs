//! The client's side of a connection that this server opens, between bytes in memory. Its owner has the socket, and may wait.

use super::engine::Engine;
use super::layer::read_behind;
use super::{Connector, Read};

/// So much is decrypted at a time: a record.
const RECORD_BYTES: usize = 16 << 10;

/// An encrypted connection to another server.
pub struct Client {
    engine: Engine,
    is_open: bool,
    has_ended: bool,
    /// Decrypted, and not taken yet from `plain_done` on.
    plain: Vec<u8>,
    plain_done: usize,
}

impl Client {
    /// Begins the handshake: its first words are in the output.
    ///
    /// # Errors
    /// OpenSSL's line.
    pub fn new(connector: &Connector) -> Result<Client, String> {
        let engine = Engine::connecting(connector)?;
        let mut client =
            Client { engine, is_open: false, has_ended: false, plain: Vec::new(), plain_done: 0 };
        client.receive(&[])?;
        Ok(client)
    }

    /// Takes bytes from the socket: goes on with the handshake, and decrypts what is behind it.
    ///
    /// # Errors
    /// OpenSSL's line; the connection is of no use then.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.plain.drain(..std::mem::take(&mut self.plain_done));
        let Client { engine, is_open, has_ended, plain, .. } = self;
        engine.with_input(bytes, |engine| {
            if !*is_open {
                *is_open = engine.shake_hands()?;
            }
            while *is_open && !*has_ended {
                let begin = plain.len();
                match read_behind(engine, plain, begin + RECORD_BYTES) {
                    Read::Plain(_) => {}
                    Read::NeedsMore => break,
                    Read::Ended => *has_ended = true,
                    Read::Failed(why) => return Err(why),
                }
            }
            Ok(())
        })
    }

    /// Whether the handshake is complete.
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// Takes what is decrypted, as far as there is room; `None`: more has to be received first. 0: it was the end.
    pub fn take(&mut self, into: &mut [u8]) -> Option<usize> {
        let rest = &self.plain[self.plain_done..];
        if rest.is_empty() {
            return self.has_ended.then_some(0);
        }
        let len = rest.len().min(into.len());
        into[..len].copy_from_slice(&rest[..len]);
        self.plain_done += len;
        Some(len)
    }

    /// Encrypts all of `plain`, to the output.
    ///
    /// # Errors
    /// OpenSSL's line.
    pub fn write(&mut self, plain: &[u8]) -> Result<(), String> {
        self.engine.write(plain)
    }

    /// What is to be sent.
    pub fn output(&mut self) -> &mut Vec<u8> {
        self.engine.output()
    }
}
