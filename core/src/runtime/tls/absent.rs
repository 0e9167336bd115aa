//! The engine's place in a server that was built without the feature `tls`: no context can be made, so there is no engine.

use super::{Acceptor, Connector, Read};
use crate::config::Config;
use std::convert::Infallible;
use std::mem::MaybeUninit;

#[derive(Clone)]
pub struct Context(Infallible);

impl Context {
    pub(super) fn new(_: &Config) -> Result<Context, String> {
        Err("This build of Shardis has no TLS: it was built without the feature `tls`.".to_string())
    }
}

pub struct PeerCertificate(Infallible);

impl PeerCertificate {
    pub fn to_pem(&self) -> Option<Vec<u8>> {
        match self.0 {}
    }
}

pub(super) struct Engine(Infallible);

impl Engine {
    pub(super) fn new(acceptor: &Acceptor) -> Result<Engine, String> {
        match acceptor.context.0 {}
    }

    pub(super) fn connecting(connector: &Connector) -> Result<Engine, String> {
        match connector.context.0 {}
    }

    pub(super) fn with_input<T>(&mut self, _: &[u8], _: impl FnOnce(&mut Engine) -> T) -> T {
        match self.0 {}
    }

    pub(super) fn shake_hands(&mut self) -> Result<bool, String> {
        match self.0 {}
    }

    pub(super) fn peer_certificate(&self) -> Option<PeerCertificate> {
        match self.0 {}
    }

    pub(super) fn has_input(&self) -> bool {
        match self.0 {}
    }

    pub(super) fn read(&mut self, _: &mut [MaybeUninit<u8>]) -> Read {
        match self.0 {}
    }

    pub(super) fn write(&mut self, _: &[u8]) -> Result<(), String> {
        match self.0 {}
    }

    pub(super) fn end(&mut self) {
        match self.0 {}
    }

    pub(super) fn output(&mut self) -> &mut Vec<u8> {
        match self.0 {}
    }
}
