//! A server with a module loaded.

use crate::client::Client;
use crate::library::Library;
use std::fs;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub struct Server {
    process: Child,
    program: String,
    port: u16,
    library: Library,
    /// Its working directory, which goes with it.
    directory: PathBuf,
    arguments: Vec<String>,
}

impl Server {
    /// A redis-server with the library of a module, which gets `module_arguments`; `options` are those of the server.
    /// None if there is no redis-server 7.0. Panics if the library does not compile or does not load.
    pub fn start(library: Library, module_arguments: &[&str], options: &[&str]) -> Option<Server> {
        let program = redis_server();
        let version = Command::new(&program).arg("--version").output().ok();
        if !version.is_some_and(|output| String::from_utf8_lossy(&output.stdout).contains("v=7.0.")) {
            // `cargo verify` sets this when it has installed everything.
            assert!(std::env::var_os("SHARDIS_TESTS_COMPLETE").is_none(), "{program} is no redis-server 7.0");
            eprintln!("nothing was tested, for {program} is no redis-server 7.0");
            return None;
        }
        Some(Server::start_program(&program, library, module_arguments, options))
    }

    /// The same for a program that takes the options of a redis-server.
    pub fn start_program(
        program: &str,
        library: Library,
        module_arguments: &[&str],
        options: &[&str],
    ) -> Server {
        let port = {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
            listener.local_addr().expect("a listener has an address").port()
        };
        let directory = std::env::temp_dir().join(format!("module-in-redis-{port}"));
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).expect("a directory for the server");
        let fixed = ["--port", &port.to_string(), "--save", "", "--enable-debug-command", "yes"];
        let mut arguments: Vec<String> = fixed.map(str::to_string).to_vec();
        arguments.extend(["--enable-module-command", "yes", "--dir"].map(str::to_string));
        arguments.push(directory.display().to_string());
        arguments.extend(options.iter().map(|option| option.to_string()));
        arguments.extend(["--loadmodule".to_string(), library.path().display().to_string()]);
        arguments.extend(module_arguments.iter().map(|argument| argument.to_string()));
        let process = run(program, &arguments, port);
        Server { process, program: program.to_string(), port, library, directory, arguments }
    }

    /// Kills it, and starts it again with the files that it left.
    pub fn restart(&mut self) {
        self.kill();
        self.process = run(&self.program, &self.arguments, self.port);
    }

    pub fn connect(&self) -> Client {
        Client::connect(self.port)
    }

    /// The library of the module.
    pub fn library(&self) -> Library {
        self.library
    }

    /// Where its files are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Waits for its end, and gives what it wrote to its standard error.
    pub fn last_words(&mut self) -> String {
        let mut text = String::new();
        let stderr = self.process.stderr.as_mut().expect("it is piped");
        stderr.read_to_string(&mut text).expect("the server writes text");
        text
    }

    fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn redis_server() -> String {
    std::env::var("REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_string())
}

fn run(program: &str, arguments: &[String], port: u16) -> Child {
    let started = Instant::now();
    let mut process = Command::new(program)
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the server starts");
    // It listens before it has loaded its data.
    while TcpStream::connect(("127.0.0.1", port)).is_err() || Client::connect(port).ask("PING") != "PONG" {
        let ended = process.try_wait().expect("it is a child of this process");
        assert!(ended.is_none(), "{program} ended: {arguments:?}");
        assert!(started.elapsed() < Duration::from_secs(60), "{program} does not listen: {arguments:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
    process
}
