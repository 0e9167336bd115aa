//! The functions of the server as this library has them: one static, filled when the module is loaded.

use crate::abi::Api;

/// All of a library's modules share it: they have the same server.
pub(crate) static API: Api = Api::EMPTY;

/// The function of this name. Panics if the server lacks it, so it is for those that every server has.
macro_rules! api {
    ($name:ident) => {
        match $crate::api::API.$name.get() {
            Some(function) => function,
            None => $crate::api::missing(stringify!($name)),
        }
    };
}

/// The function of this name, if the server has it.
macro_rules! api_if_there {
    ($name:ident) => {
        $crate::api::API.$name.get()
    };
}

pub(crate) use {api, api_if_there};

#[cold]
pub(crate) fn missing(name: &str) -> ! {
    panic!("the server has no function {name}")
}
