//! The SDK's own tests, which it runs against Redis, against this server: on one shard and on several, with the module as one
//! that is shard-safe and as one that is not. And what a command meets that asks for more than its row says.

#[path = "../../../../modules-api/tests/tour/mod.rs"]
mod shared;

use shardis_modules_testing::{Library, Server};

const TOUR: Library = Library::Example("shardis-modules-api", "tour");
const ALONE: Library = Library::Example("shardis-modules-api", "tour_alone");

fn start(library: Library, shards: &str, module_arguments: &[&str], options: &[&str]) -> Server {
    let options = [&["--shards", shards], options].concat();
    Server::start_program(env!("CARGO_BIN_EXE_shardis"), library, module_arguments, &options)
}

fn on_each_server(module_arguments: &[&str], options: &[&str], test: impl Fn(Server)) {
    for library in [TOUR, ALONE] {
        for shards in ["1", "3"] {
            println!("{library:?}, {shards} shards");
            test(start(library, shards, module_arguments, options));
        }
    }
}

const NOT_WIDE: &str = "-ERR the command 'tour.narrow' needs more than its keys, and is not declared wide";
const NOT_BLOCKING: &str =
    "-ERR the command 'tour.narrow' needs more than its keys, and is not declared blocking";

/// With the module as it is, under which commands that write are programs, and as one under which they are not.
fn on_each_narrow_server(options: &[&str], test: impl Fn(Server)) {
    for module_arguments in [&[][..], &["DEAF"]] {
        for shards in ["1", "3"] {
            println!("{module_arguments:?}, {shards} shards");
            test(start(TOUR, shards, module_arguments, options));
        }
    }
}

#[test]
fn a_shard_safe_command_that_declares_nothing_is_refused_what_needs_a_program() {
    let path = std::env::temp_dir().join(format!("shardis-narrow-{}.log", std::process::id()));
    on_each_narrow_server(&["--logfile", path.to_str().expect("a path in UTF-8")], |server| {
        server.connect().expect(&[
            ("tour.narrow k WAIT", NOT_BLOCKING),
            ("tour.narrow k WAITKEY", NOT_BLOCKING),
            ("tour.narrow k SCAN", NOT_WIDE),
            (
                "tour.narrow k CALL EVAL return(1) 0",
                "-ERR 'EVAL' can only be called by a command that is declared wide",
            ),
            (
                "tour.narrow k CALL DBSIZE",
                "-ERR 'DBSIZE' can only be called by a command that is declared wide",
            ),
            ("tour.narrow k CALL SET other v", "-ERR the command has not declared all keys of 'SET'"),
            ("DBSIZE", ":0"),
        ]);
        let log = std::fs::read_to_string(&path).expect("there is a log");
        std::fs::remove_file(&path).expect("it is there");
        let refused = "The command 'tour.narrow' of the module tour has called RedisModule_Call in vain";
        assert_eq!(log.matches(refused).count(), 1, "it is said once:\n{log}");
    });
}

#[test]
fn a_shard_safe_command_calls_those_of_other_modules_over_its_own_keys() {
    on_each_narrow_server(&[], |server| {
        server.connect().expect(&[
            ("tour.narrow h CALL PFADD h a", ":1"),
            ("tour.narrow h CALL PFADD h a", ":0"),
            ("PFCOUNT h", ":1"),
            ("tour.narrow b CALL SETBIT b 7 1", ":0"),
            ("tour.narrow g CALL GEOADD g 13 38 m", ":1"),
            (
                "tour.narrow b CALL GEOADD b 13 38 m",
                "-WRONGTYPE Operation against a key holding the wrong kind of value",
            ),
            ("tour.narrow g CALL GEOADD h 13 38 m", "-ERR the command has not declared all keys of 'GEOADD'"),
        ]);
    });
}

/// Each of them was a unit of its own, and what a command of a module said of itself was recorded, wanted or not.
#[test]
fn effects_of_what_a_command_calls_are_of_its_unit_and_only_if_it_wants_them() {
    let options = ["--appendonly", "yes", "--appendfsync", "always"];
    on_each_narrow_server(&options, |server| {
        server.connect().expect(&[
            ("tour.narrow silent SILENTLY PFADD silent a", ":1"),
            ("tour.narrow silent SILENTLY SET silent a", "OK"),
            ("tour.narrow n TWICE", "OK"),
            ("tour.narrow h CALL PFADD h a", ":1"),
        ]);
        let files = std::fs::read_dir(server.directory().join("appendonlydir")).expect("there are files");
        let file = files
            .map(|file| file.expect("a file has a name").path())
            .find(|path| path.to_string_lossy().contains(".incr."))
            .expect("there is an incremental file");
        let text =
            String::from_utf8_lossy(&std::fs::read(file).expect("it can be read")).replace("\r\n", " ");
        let incr = "*2 $4 INCR $1 n ";
        let expected = format!("*1 $5 MULTI {incr}{incr}*1 $4 EXEC *3 $5 PFADD $1 h $1 a ");
        assert!(text.ends_with(&expected), "{text}");
        assert!(!text.contains("silent"), "{text}");
    });
}

#[test]
fn a_command_of_a_module_that_is_not_shard_safe_need_not_declare_anything() {
    for shards in ["1", "3"] {
        let server = start(ALONE, shards, &[], &[]);
        server.connect().expect(&[
            ("tour.narrow k WAIT", "OK"),
            ("tour.narrow k WAITKEY", "OK"),
            ("tour.narrow k SCAN", "OK"),
            ("tour.narrow k CALL EVAL return(1) 0", ":1"),
            ("tour.narrow k CALL SET other v", "OK"),
            ("tour.narrow k CALL DBSIZE", ":1"),
        ]);
    }
}

/// Others are served while the clients of a shard-safe module wait, and its commands over other keys run.
#[test]
fn waits_and_wide_commands_of_a_shard_safe_module_stop_nobody() {
    const CLIENTS: usize = 4;
    const ROUNDS: usize = 200;
    for shards in ["1", "3"] {
        let server = start(TOUR, shards, &[], &[]);
        let mut waiting: Vec<_> = (0..CLIENTS).map(|_| server.connect()).collect();
        waiting.iter_mut().for_each(|client| client.send("tour.pop queue 60000 got:"));
        std::thread::scope(|scope| {
            for number in 0..CLIENTS {
                let server = &server;
                scope.spawn(move || {
                    let mut client = server.connect();
                    for round in 0..ROUNDS {
                        let count = format!(":{}", round + 1);
                        client.expect(&[
                            (&format!("tour.put bag{number} word 1"), &count),
                            (&format!("tour.call INCR count{number}"), &count),
                            (&format!("tour.thread thread{number}"), &format!("Integer({})", round + 1)),
                            ("tour.wait 0 ANSWER hello", "hello"),
                        ]);
                    }
                });
            }
        });
        let mut client = server.connect();
        for _ in 0..CLIENTS {
            client.ask("RPUSH queue x");
        }
        for client in &mut waiting {
            assert_eq!(client.read(), "got:x");
        }
        client.expect(&[("DBSIZE", &format!(":{}", 3 * CLIENTS))]);
    }
}
