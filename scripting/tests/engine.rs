//! The engine as its host sees it.

mod common;

use common::{SCRIPT_NAME, Server, eval, eval_with, fcall, vm};
use shardis_scripting::{FunctionFlags, LogLevel, ReplTargets, Resp, RunOptions, Script, Vm};

#[test]
fn a_script_gets_keys_and_args_and_calls_commands() {
    let vm = vm();
    let mut server = Server::default();

    let reply = eval_with(
        &vm,
        &mut server,
        b"redis.call('SET', KEYS[1], ARGV[1]) return {redis.call('GET', KEYS[1]), #KEYS, #ARGV}",
        &[b"a"],
        &[b"b", b"c"],
        Resp::V2,
    );

    assert_eq!(reply, b"*3\r\n$1\r\nb\r\n:1\r\n:2\r\n");
    assert_eq!(server.strings.get(b"a".as_slice()), Some(&b"b".to_vec()));
}

/// What a script, called `sha`, replies, behind what stands there already; or its error.
fn run(vm: &Vm, script: &Script, keys: &[&[u8]], args: &[&[u8]]) -> Result<String, String> {
    let mut out = b"before".to_vec();
    let result = vm.run(script, b"sha", keys, args, RunOptions::default(), &mut Server::default(), &mut out);
    result.map_err(|error| String::from_utf8(error.text).unwrap())?;
    let out = String::from_utf8(out).unwrap();
    Ok(out.strip_prefix("before").expect("what stood there stays").to_owned())
}

#[test]
fn keys_and_args_of_one_run_are_not_those_of_the_next() {
    let vm = vm();
    let script = vm.compile(b"return {KEYS[1] or 'none', ARGV[1] or 'none'}").unwrap();
    let run = |keys: &[&[u8]], args: &[&[u8]]| run(&vm, &script, keys, args).unwrap();

    assert_eq!(run(&[b"a"], &[b"b"]), "*2\r\n$1\r\na\r\n$1\r\nb\r\n");
    assert_eq!(run(&[], &[]), "*2\r\n$4\r\nnone\r\n$4\r\nnone\r\n");
}

/// Elements that are arguments stand among the script's constants, which each run has to set, and leave as nil.
#[test]
fn elements_that_are_arguments_are_those_of_the_run() {
    let vm = vm();
    let script = vm
        .compile(
            b"collectgarbage() local within = function() return tostring(KEYS[1]) end
            local garbage = {} for i = 1, 500 do garbage[i] = tostring(i) .. 'x' end
            return {tostring(KEYS[1]), tostring(KEYS[2]), tostring(ARGV[1]), within()}",
        )
        .unwrap();
    let run = |keys: &[&[u8]], args: &[&[u8]]| run(&vm, &script, keys, args).unwrap();
    let texts = |values: [&str; 4]| {
        let bulk = |value: &str| format!("${}\r\n{value}\r\n", value.len());
        format!("*4\r\n{}", values.map(bulk).concat())
    };

    for n in 0..200 {
        let (key, arg) = (format!("key{n}"), format!("arg{n}"));
        assert_eq!(run(&[key.as_bytes(), b"2"], &[arg.as_bytes()]), texts([&key, "2", &arg, &key]));
        assert_eq!(run(&[key.as_bytes()], &[]), texts([&key, "nil", "nil", &key]));
        assert_eq!(run(&[], &[arg.as_bytes()]), texts(["nil", "nil", &arg, "nil"]));
    }
}

/// A reply that a script returns as it came makes no Lua value; any other way it does.
#[test]
fn the_reply_of_the_last_call_is_that_of_the_script() {
    let vm = vm();
    for (body, reply) in [
        ("return redis.call('echo', KEYS[1])", "$3\r\nkey\r\n"),
        ("return redis.pcall('echo', ARGV[1])", "$3\r\narg\r\n"),
        ("local f = function() return redis.call('echo', KEYS[1]) end return f() .. '!'", "$4\r\nkey!\r\n"),
        ("local f = function() return redis.call('echo', KEYS[1]) end return {f()}", "*1\r\n$3\r\nkey\r\n"),
        ("local f = function() return redis.call('echo', KEYS[1]) end return f()", "$3\r\nkey\r\n"),
        ("return (redis.call('echo', KEYS[1]))", "$3\r\nkey\r\n"),
        ("local _, v = pcall(redis.call, 'echo', KEYS[1]) return v", "$3\r\nkey\r\n"),
        ("return pcall(redis.call, 'echo', KEYS[1])", ":1\r\n"),
        ("local c = coroutine.wrap(function() return redis.call('echo', KEYS[1]) end) return #c()", ":3\r\n"),
        (
            "local c = coroutine.wrap(function() return redis.call('echo', KEYS[1]) end) return c()",
            "$3\r\nkey\r\n",
        ),
        ("return redis.call('echo', redis.call('echo', KEYS[1]) .. ARGV[1])", "$6\r\nkeyarg\r\n"),
    ] {
        let script = vm.compile(body.as_bytes()).unwrap();
        for _ in 0..2 {
            assert_eq!(run(&vm, &script, &[b"key"], &[b"arg"]).unwrap(), reply, "{body}");
        }
    }
}

/// An error names a field or a global by the instruction that has loaded it.
#[test]
fn errors_about_keys_and_args_are_worded_as_lua_does() {
    let vm = vm();
    for (body, error) in [
        ("return ARGV[1] + 1", "attempt to perform arithmetic on field '?' (a nil value)"),
        ("return 'a' .. KEYS[1]", "attempt to concatenate field '?' (a nil value)"),
        ("return KEYS[1][2]", "attempt to index field '?' (a nil value)"),
        ("return KEYS.first.x", "attempt to index field 'first' (a nil value)"),
        ("KEYS[1]()", "attempt to call field '?' (a nil value)"),
        ("return KEYS + 1", "attempt to perform arithmetic on global 'KEYS' (a table value)"),
        ("ARGV()", "attempt to call global 'ARGV' (a table value)"),
        ("return redis.cull('GET', KEYS[1])", "attempt to call field 'cull' (a nil value)"),
        ("return tonumber()", "bad argument #1 to 'tonumber' (value expected)"),
        ("return string.rep(KEYS[1], 2)", "bad argument #1 to 'rep' (string expected, got nil)"),
    ] {
        let script = vm.compile(body.as_bytes()).unwrap();
        let text = run(&vm, &script, &[], &[]).unwrap_err();
        assert_eq!(text, format!("ERR user_script:1: {error} script: sha, on @user_script:1."), "{body}");
    }
}

#[test]
fn what_a_script_does_to_keys_and_argv_does_not_show_in_the_next_run() {
    let vm = vm();
    let look = vm
        .compile(
            b"local names = {} for k in pairs(KEYS) do names[#names + 1] = tostring(k) end
            return {#KEYS, table.concat(names, ','), getmetatable(KEYS) and 1 or 0, #ARGV, KEYS[1], rawget(ARGV, 1)}",
        )
        .unwrap();
    let run = |body: &str| {
        let script = vm.compile(body.as_bytes()).unwrap();
        let mut reply = Vec::new();
        let _ =
            vm.run(&script, b"", &[b"a"], &[b"b"], RunOptions::default(), &mut Server::default(), &mut reply);
        reply.clear();
        vm.run(&look, b"", &[b"k"], &[b"v"], RunOptions::default(), &mut Server::default(), &mut reply)
            .unwrap();
        String::from_utf8(reply).unwrap()
    };

    let as_new = "*6\r\n:1\r\n$1\r\n1\r\n:0\r\n:1\r\n$1\r\nk\r\n$1\r\nv\r\n";
    for body in [
        "return 1",
        "KEYS[1] = nil",
        "KEYS[2] = 'more' ARGV[2] = 'more'",
        "KEYS[1] = nil KEYS.name = 'x'",
        "for i = 1, 100 do KEYS[i] = i end",
        "setmetatable(KEYS, {__index = function() return 'x' end}) setmetatable(ARGV, {})",
        "KEYS[0] = 'zero' KEYS[-1] = 'below' KEYS[1.5] = 'between' error('no')",
        "table.insert(KEYS, 1, 'first') table.remove(ARGV)",
    ] {
        assert_eq!(run(body), as_new, "{body}");
    }
}

#[test]
fn a_script_that_assigns_a_global_anywhere_is_refused_and_leaves_the_globals_alone() {
    let vm = vm();
    let mut server = Server::default();
    let mut run = |body: &str| String::from_utf8_lossy(&eval(&vm, &mut server, body, Resp::V2)).into_owned();

    for body in [
        "KEYS = {}",
        "redis = nil",
        "function tostring() end",
        "local f = function() return function() redis = 1 end end f()()",
        "local ok, why = pcall(function() string = nil end) error(why)",
        "_G.redis = 1",
        "loadstring('redis = 1')()",
        "load(coroutine.wrap(function() coroutine.yield('ARGV = 1') end))()",
        "coroutine.wrap(function() type = nil end)()",
    ] {
        let reply = run(body);
        assert!(reply.contains("Attempt to modify a readonly table"), "{body}: {reply}");
    }
    assert_eq!(
        run("return {type(redis), type(KEYS), tostring(1), type(_G), _G.redis == redis and 1 or 0}"),
        "*5\r\n$5\r\ntable\r\n$5\r\ntable\r\n$1\r\n1\r\n$5\r\ntable\r\n:1\r\n"
    );
    assert!(
        run("return missing").contains("Script attempted to access nonexistent global variable 'missing'")
    );
}

#[test]
fn libraries_serialise_with_their_fields() {
    let vm = vm();
    let run = |body: &str| {
        String::from_utf8(eval(&vm, &mut Server::default(), body, Resp::V2)).expect("the replies are ASCII")
    };

    // As many bytes as Redis makes of them; the order of fields is Lua's.
    assert_eq!(
        run("return {#cmsgpack.pack(bit), #cmsgpack.pack(math), #cmsgpack.pack({{redis}})}"),
        "*3\r\n:80\r\n:200\r\n:282\r\n"
    );
    for table in ["redis", "{cjson}", "_G", "getmetatable('')"] {
        let reply = run(&format!("return cjson.encode({table})"));
        assert!(reply.contains("Cannot serialise function: type not supported"), "{table}: {reply}");
    }
}

#[test]
fn an_error_names_the_script_and_its_line() {
    let vm = vm();

    let reply = eval(&vm, &mut Server::default(), "#!lua\n\nerror('boom')", Resp::V2);

    assert_eq!(
        String::from_utf8(reply).unwrap(),
        format!("-ERR user_script:3: boom script: {SCRIPT_NAME}, on @user_script:3.\r\n")
    );
}

#[test]
fn a_status_or_an_error_ends_at_a_zero_byte() {
    let vm = vm();
    let mut server = Server::default();
    let mut run = |body: &str| {
        String::from_utf8(eval(&vm, &mut server, body, Resp::V2)).expect("the replies are ASCII")
    };

    assert_eq!(run("return {ok='a\\0b'}"), "+a\r\n");
    assert_eq!(run("return {{err='E a\\0b'}, {ok='a\\0b'}}"), "*2\r\n-E a\r\n+a\r\n");
    assert_eq!(run("return redis.error_reply('a\\0b')"), "-ERR a\r\n");
    let place = format!(" script: {SCRIPT_NAME}, on @user_script:1.\r\n");
    assert_eq!(run("error('a\\0b')"), format!("-ERR user_script:1: a{place}"));
    assert_eq!(run("error({err='E a\\0b'})"), format!("-E a{place}"));
}

#[test]
fn an_error_of_a_command_is_counted_already() {
    let vm = vm();
    let count = |body: &str| {
        let script = vm.compile(body.as_bytes()).unwrap();
        let mut reply = Vec::new();
        vm.run(&script, b"x", &[], &[], RunOptions::default(), &mut Server::default(), &mut reply)
            .unwrap_err()
    };

    let raised = count("redis.call('lpush', 'a', 'b')");
    let returned = count("return redis.pcall('lpush', 'a', 'b')");
    let own = count("return redis.error_reply('MINE it is')");

    assert!(raised.already_counted && returned.already_counted && !own.already_counted);
    assert_eq!(returned.text, b"WRONGTYPE Operation against a key holding the wrong kind of value");
    assert_eq!(
        raised.text,
        b"WRONGTYPE Operation against a key holding the wrong kind of value script: x, on @user_script:1."
    );
    assert_eq!(own.text, b"MINE it is");
}

#[test]
fn the_host_is_told_of_errors_within_a_reply() {
    let vm = vm();
    let mut server = Server::default();

    eval(
        &vm,
        &mut server,
        "return {redis.pcall('lpush', 'a', 'b'), {{err='MINE it is'}}, {ok='x'}}",
        Resp::V2,
    );
    eval(&vm, &mut server, "return redis.error_reply('MINE alone')", Resp::V2);

    let of_command = "WRONGTYPE Operation against a key holding the wrong kind of value";
    assert_eq!(server.errors, [(of_command.to_owned(), true), ("MINE it is".to_owned(), false)]);
}

#[test]
fn a_command_is_called_with_what_the_script_set() {
    let vm = vm();
    let mut server = Server::default();

    eval(
        &vm,
        &mut server,
        "redis.call('get', 'a') redis.setresp(3) redis.set_repl(redis.REPL_AOF) redis.call('get', 'a')",
        Resp::V3,
    );
    eval(&vm, &mut server, "redis.call('get', 'a')", Resp::V3);

    let seen: Vec<_> = server.options.iter().map(|options| (options.resp, options.repl)).collect();
    assert_eq!(
        seen,
        [(Resp::V2, ReplTargets::ALL), (Resp::V3, ReplTargets::AOF), (Resp::V2, ReplTargets::ALL)]
    );
}

#[test]
fn a_script_logs() {
    let vm = vm();
    let mut server = Server::default();

    eval(&vm, &mut server, "redis.log(redis.LOG_WARNING, 'a', 3, {}, 'b')", Resp::V2);

    assert_eq!(server.logged, [(LogLevel::Warning, "a 3 b".to_owned())]);
}

#[test]
fn a_library_registers_functions_with_their_flags() {
    let vm = vm();
    let mut server = Server::default();

    let library = vm
        .load_library(
            b"#!lua name=x\nlocal count = 0\n\
              redis.register_function('plain', function(keys, args) count = count + 1 return {count, keys[1], args[1]} end)\n\
              redis.register_function{function_name='named', callback=function() return redis.call('get', 'a') end, \
              flags={'no-writes', 'allow-stale'}, description='what it does'}",
            &mut server,
        )
        .unwrap();

    let functions = library.functions();
    assert_eq!(functions[0].name, b"plain");
    assert_eq!(functions[0].description, None);
    assert_eq!(functions[1].description.as_deref(), Some(b"what it does".as_slice()));
    assert_eq!(functions[1].flags, FunctionFlags::NO_WRITES.union(FunctionFlags::ALLOW_STALE));
    assert_eq!(functions[1].flags.names().collect::<Vec<_>>(), ["no-writes", "allow-stale"]);
    for count in [1, 2] {
        let reply = fcall(&vm, &mut server, &library, "plain", &[b"k"], &[b"a"]);
        assert_eq!(reply, format!("*3\r\n:{count}\r\n$1\r\nk\r\n$1\r\na\r\n").into_bytes());
    }
    assert_eq!(fcall(&vm, &mut server, &library, "named", &[], &[]), b"$-1\r\n");
}

#[test]
fn memory_that_a_script_took_is_given_back_when_it_is_dropped() {
    let vm = vm();
    let body = format!("return '{}'", "x".repeat(100_000));

    let before = vm.memory_bytes();
    let script = vm.compile(body.as_bytes()).unwrap();
    let with_script = vm.memory_bytes();
    drop(script);
    eval(&vm, &mut Server::default(), "collectgarbage() collectgarbage()", Resp::V2);

    assert!(with_script > before + 100_000);
    assert!(vm.memory_bytes() < before + 50_000, "{} of {before}", vm.memory_bytes());
}
