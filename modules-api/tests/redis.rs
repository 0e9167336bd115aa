//! The SDK against a real server: the module of `examples/tour`, loaded into redis-server 7.0. The server's own tests load it into
//! Shardis.

mod tour;

use shardis_modules_testing::{Library, Server};

const TOUR: Library = Library::Example("shardis-modules-api", "tour");

/// Starts a server with the module, and tests it, if there is one to test with.
fn on_each_server(module_arguments: &[&str], options: &[&str], test: impl Fn(Server)) {
    if let Some(server) = Server::start(TOUR, module_arguments, options) {
        test(server);
    }
}
