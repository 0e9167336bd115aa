//! What calls cost, here and on the server.

use super::Server;
use super::vm::Vm;

/// About 1 KB: an order, as a service would keep it.
const DOCUMENT: &str = r#"{"id":"ord_8f14e45fceea167a5a36dedd4bea2543","created":1700000000123,"status":"paid","customer":{"id":918273,"name":"Ana Mar\u00eda L\u00f3pez","email":"ana.lopez@example.com","vip":true,"address":{"street":"12 Long Street, apartment 4","city":"Porto","zip":"4000-123","country":"PT"}},"items":[{"sku":"AB-1001","title":"Wireless mouse","price":24.99,"quantity":2,"tags":["input","usb"]},{"sku":"CD-2002","title":"Mechanical keyboard","price":119.5,"quantity":1,"tags":["input","backlit","us layout"]},{"sku":"EF-3003","title":"27 inch monitor","price":299,"quantity":1,"tags":[]}],"totals":{"net":468.48,"tax":107.75,"shipping":4.9,"gross":581.13},"coupons":null,"notes":"Leave it with the neighbour if nobody is at home.\nRing twice.","history":[{"at":1700000000123,"event":"created"},{"at":1700000004456,"event":"authorized"},{"at":1700000009789,"event":"paid"}],"gift":false,"weight_kg":7.35,"source":"https://shop.example.com/checkout"}"#;

/// A name, what is prepared, what is repeated.
const CALLS: [(&str, &str, &str); 8] = [
    ("cjson.encode(cjson.decode(1 KB))", "", "cjson.encode(cjson.decode(document))"),
    ("cjson.decode(1 KB)", "", "cjson.decode(document)"),
    ("cjson.encode(1 KB)", "local value=cjson.decode(document)", "cjson.encode(value)"),
    ("cjson.encode(100 fractions)", "local t={} for i=1,100 do t[i]=i/7 end", "cjson.encode(t)"),
    ("cmsgpack.pack(1 KB)", "local value=cjson.decode(document)", "cmsgpack.pack(value)"),
    (
        "cmsgpack.unpack(1 KB)",
        "local packed=cmsgpack.pack(cjson.decode(document))",
        "cmsgpack.unpack(packed)",
    ),
    ("struct.unpack(struct.pack(...))", "", "struct.unpack('>IhBd', struct.pack('>IhBd',1,2,3,4.5))"),
    ("bit.band(bit.lshift(...))", "", "bit.band(bit.lshift(i,3),255)"),
];
const ROUNDS: usize = 5;

pub fn compare(server: &mut Server, count: usize) {
    println!("{:36} {:>9} {:>9} {:>6}", "microseconds of a call", "ours", "server's", "ratio");
    let mut vm = Vm::new(super::MEMORY_BYTES_MAX);
    for (name, preparation, call) in CALLS {
        let script = |call: &str| {
            format!(
                "local document=[==[{DOCUMENT}]==] {preparation} for i=1,{count} do local _={call} end return 'ok'"
            )
        };
        let mut ours = f64::MAX;
        let mut theirs = f64::MAX;
        for _ in 0..ROUNDS {
            ours = ours.min(time_here(&mut vm, &script(call)) - time_here(&mut vm, &script("i")));
            theirs = theirs.min(time_there(server, &script(call)) - time_there(server, &script("i")));
        }
        let scale = 1e6 / count as f64;
        println!("{name:36} {:9.3} {:9.3} {:6.2}", ours * scale, theirs * scale, ours / theirs);
    }
}

/// In seconds of processor time.
fn time_here(vm: &mut Vm, script: &str) -> f64 {
    let script = script.replace("return 'ok'", "return string.format('%.9f', os.clock()-began)");
    let result = vm.eval(format!("collectgarbage() local began=os.clock() {script}").as_bytes(), c"@time");
    let text = result.unwrap_or_else(|error| panic!("{}", error.escape_ascii()));
    String::from_utf8_lossy(&text).parse().expect("a number")
}

fn time_there(server: &mut Server, script: &str) -> f64 {
    let before = server_cpu(server);
    let reply = server.call(&[b"EVAL", format!("collectgarbage() {script}").as_bytes(), b"0"]);
    assert_eq!(reply, b"ok");
    server_cpu(server) - before
}

fn server_cpu(server: &mut Server) -> f64 {
    let info = server.call(&[b"INFO", b"cpu"]);
    let info = String::from_utf8_lossy(&info);
    let fields = ["used_cpu_sys_main_thread:", "used_cpu_user_main_thread:"];
    let seconds = |field| info.lines().find_map(|line| line.strip_prefix(field)?.parse::<f64>().ok());
    fields.iter().map(|field| seconds(field).expect("a field of INFO")).sum()
}
