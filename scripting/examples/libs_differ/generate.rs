//! Random calls of the libraries, as Lua chunks.

/// A generator that needs no more than a seed (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 8) % end
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

pub struct Generator {
    random: Random,
    /// Whether arrays may be as sparse as they like, so that no index may be large.
    has_small_keys: bool,
}

const LETTERS: &[u8] = b"abcxyzABC019 _-/\"\\\n\t\r\x08\x0c\x00\x01\x1f\x7f\x80\xc3\xa9\xff{}[]:,.";

/// Longer ones are not hashed alike.
const KEY_LEN_MAX: u64 = 31;

impl Generator {
    pub fn new(seed: u64) -> Generator {
        let mut random = Random(seed | 1);
        random.next();
        Generator { random, has_small_keys: false }
    }

    pub fn case(&mut self) -> Vec<u8> {
        match self.random.below(24) {
            0..=3 => self.cjson_encode(),
            4..=7 => self.cjson_decode(),
            8..=9 => self.cjson_settings(),
            10 if self.random.one_in(4) => self.cjson_deep(),
            11..=13 => self.cmsgpack_pack(),
            14..=16 => self.cmsgpack_unpack(),
            17 if self.random.one_in(3) => self.cmsgpack_deep(),
            18..=19 => self.struct_pack(),
            20..=21 => self.struct_unpack(),
            22 => self.struct_size(),
            _ => self.bit(),
        }
        .into_bytes()
    }

    // What values look like

    fn number(&mut self) -> String {
        let random = &mut self.random;
        let small = random.below(300) as i64 - 150;
        let large = random.next() >> random.below(64);
        match random.below(14) {
            0..=3 => small.to_string(),
            4 => large.to_string(),
            5 => format!("-{large}"),
            6 => format!("{}", small as f64 / 8.0),
            7 => format!("{}", small as f64 / 100.0),
            8 => format!("{:e}", f64::from_bits(random.next()).abs())
                .replace("NaN", "(0/0)")
                .replace("inf", "(1/0)"),
            9 => format!("{}^{}", random.pick(&["2", "-2", "10"]), random.below(70)),
            10 => format!(
                "2^{}{}",
                random.pick(&[7, 8, 15, 16, 31, 32, 52, 53, 63, 64]),
                random.pick(&["-1", "+1", ""])
            ),
            11 => {
                format!("-2^{}{}", random.pick(&[5, 7, 15, 31, 32, 53, 63]), random.pick(&["-1", "+1", ""]))
            }
            12 => random
                .pick(&["1/0", "-1/0", "0/0", "-(0/0)", "-0", "0", "1e15", "1e14", "1e-5", "0.1"])
                .to_string(),
            _ => format!("{}.{}", random.below(1 << 40), random.below(1_000_000_000)),
        }
    }

    fn bytes(&mut self, len_max: u64) -> Vec<u8> {
        let len = self.random.below(len_max + 1);
        let any = self.random.one_in(4);
        (0..len).map(|_| if any { self.random.next() as u8 } else { self.random.pick(LETTERS) }).collect()
    }

    fn string(&mut self) -> String {
        match self.random.below(12) {
            0 if self.random.one_in(200) => {
                format!("string.rep({}, {})", quoted(&self.bytes(1)), self.random.pick(&[65535, 65536]))
            }
            0 => format!(
                "string.rep({}, {})",
                quoted(&self.bytes(2)),
                self.random.pick(&[31, 32, 255, 256, 300])
            ),
            1 => quoted(self.number().as_bytes()),
            2 => quoted(self.bytes(60).as_slice()),
            _ => quoted(self.bytes(12).as_slice()),
        }
    }

    fn value(&mut self, depth: u64) -> String {
        match self.random.below(if depth == 0 { 12 } else { 20 }) {
            0..=3 => self.number(),
            4..=8 => self.string(),
            9 => self.random.pick(&["true", "false"]).to_string(),
            10 => {
                self.random.pick(&["nil", "cjson.null", "tostring", "coroutine.create(tostring)"]).to_string()
            }
            11 => "{}".to_string(),
            12..=15 => self.array(depth - 1),
            16..=18 => self.map(depth - 1),
            _ => self.sparse(depth - 1),
        }
    }

    fn array(&mut self, depth: u64) -> String {
        let len = if self.random.one_in(10) { self.random.below(40) } else { self.random.below(5) };
        let elements: Vec<String> = (0..len).map(|_| self.value(depth)).collect();
        format!("{{{}}}", elements.join(","))
    }

    fn map(&mut self, depth: u64) -> String {
        let len = if self.random.one_in(10) { self.random.below(40) } else { self.random.below(5) };
        let mut fields = String::new();
        for _ in 0..len {
            let key = match self.random.below(10) {
                0 if !self.has_small_keys => self.number().replace("0/0", "0"),
                1 => self.random.pick(&["true", "false", "1.5", "-1", "0"]).to_string(),
                2 => self.random.below(20).to_string(),
                3 if len == 1 => self.value(depth),
                _ => quoted(&self.bytes(KEY_LEN_MAX)),
            };
            fields += &format!("[{key}]={},", self.value(depth));
        }
        format!("{{{fields}}}")
    }

    fn sparse(&mut self, depth: u64) -> String {
        let mut fields = String::new();
        for _ in 0..1 + self.random.below(4) {
            let key = match self.random.below(8) {
                0 if !self.has_small_keys => {
                    self.random.pick(&["2^31", "2^32+1", "5000", "1/0", "1e300", "2^40"]).to_string()
                }
                1 => self.random.below(100).to_string(),
                _ => self.random.below(13).to_string(),
            };
            fields += &format!("[{key}]={},", self.value(depth));
        }
        format!("{{{fields}}}")
    }

    fn argument(&mut self) -> String {
        match self.random.below(12) {
            0 => self.value(1),
            1 => quoted(self.number().as_bytes()),
            2 => self.string(),
            3 => "nil".to_string(),
            _ => self.number(),
        }
    }

    // cjson

    fn cjson_settings_line(&mut self) -> String {
        let mut line = String::new();
        while self.random.one_in(3) {
            line += &match self.random.below(7) {
                0 => format!(
                    "j.encode_sparse_array({},{},{}) ",
                    self.random.pick(&["true", "false", "nil"]),
                    self.random.pick(&["0", "1", "2", "3", "2^30", "2^31-1"]),
                    self.random.pick(&["0", "1", "5", "10", "100"])
                ),
                1 => format!("j.encode_max_depth({}) ", 1 + self.random.below(4)),
                2 => format!("j.decode_max_depth({}) ", 1 + self.random.below(4)),
                3 => format!("j.encode_number_precision({}) ", 1 + self.random.below(14)),
                4 => "j.encode_keep_buffer(false) ".to_string(),
                5 => format!(
                    "j.encode_invalid_numbers({}) ",
                    self.random.pick(&["true", "false", "'null'", "'on'", "'off'"])
                ),
                _ => format!("j.decode_invalid_numbers({}) ", self.random.pick(&["true", "false"])),
            };
        }
        if line.is_empty() { "local j=cjson ".to_string() } else { format!("local j=cjson.new() {line}") }
    }

    fn cjson_encode(&mut self) -> String {
        let settings = self.cjson_settings_line();
        self.has_small_keys = settings.contains("encode_sparse_array");
        let value = self.value(4);
        self.has_small_keys = false;
        match self.random.below(8) {
            0 => format!("{settings} return j.decode(j.encode({value}))"),
            1 => format!("{settings} local f=j.encode return f({value},{})", self.value(0)),
            2 => format!("{settings} return pcall(j.encode,{value})"),
            _ => format!("{settings} return j.encode({value})"),
        }
    }

    fn cjson_decode(&mut self) -> String {
        let settings = self.cjson_settings_line();
        let mut text = Vec::new();
        self.json(&mut text, 4);
        if self.random.one_in(2) {
            self.damage(&mut text, b"{}[]:,\"\\0123456789.eE+-xnulltruefalseNaNinf \t\n\r\x00\x0bu/\xff");
        }
        let text = quoted(&text);
        match self.random.below(6) {
            0 => format!("{settings} return j.encode(j.decode({text}))"),
            1 => format!("{settings} return pcall(j.decode,{text})"),
            2 => format!("{settings} return cmsgpack.pack(j.decode({text}))"),
            _ => format!("{settings} return j.decode({text})"),
        }
    }

    fn json(&mut self, text: &mut Vec<u8>, depth: u64) {
        self.json_space(text);
        match self.random.below(if depth == 0 { 11 } else { 16 }) {
            0..=4 => self.json_number(text),
            5..=8 => {
                let len = if self.random.one_in(6) { 70 } else { 10 };
                self.json_string(text, len);
            }
            9 | 10 => text.extend(
                self.random.pick(&["true", "false", "null", "nan", "-inf", "Infinity", "0x1F"]).as_bytes(),
            ),
            11 | 12 => {
                text.push(b'[');
                for at in 0..self.random.below(6) {
                    if at > 0 {
                        text.push(b',');
                    }
                    self.json(text, depth - 1);
                }
                self.json_space(text);
                text.push(b']');
            }
            _ => {
                text.push(b'{');
                for at in 0..self.random.below(6) {
                    if at > 0 {
                        text.push(b',');
                    }
                    self.json_space(text);
                    self.json_string(text, KEY_LEN_MAX / 3);
                    self.json_space(text);
                    text.push(b':');
                    self.json(text, depth - 1);
                }
                self.json_space(text);
                text.push(b'}');
            }
        }
        self.json_space(text);
    }

    fn json_space(&mut self, text: &mut Vec<u8>) {
        while self.random.one_in(5) {
            text.push(self.random.pick(b" \t\r\n"));
        }
    }

    fn json_number(&mut self, text: &mut Vec<u8>) {
        if self.random.one_in(2) {
            text.extend((self.random.below(2000) as i64 - 1000).to_string().as_bytes());
            return;
        }
        let sign = self.random.pick(&["", "", "-", "+"]);
        let whole = self.random.next() >> self.random.below(64);
        let fraction =
            if self.random.one_in(2) { format!(".{}", self.random.below(1_000_000)) } else { String::new() };
        let exponent = if self.random.one_in(3) {
            format!(
                "{}{}{}",
                self.random.pick(&["e", "E"]),
                self.random.pick(&["", "+", "-"]),
                self.random.below(340)
            )
        } else {
            String::new()
        };
        text.extend(format!("{sign}{whole}{fraction}{exponent}").as_bytes());
    }

    fn json_string(&mut self, text: &mut Vec<u8>, len: u64) {
        text.push(b'"');
        for _ in 0..self.random.below(len) {
            match self.random.below(12) {
                0 => text.extend(
                    self.random.pick(&["\\n", "\\\"", "\\\\", "\\/", "\\b", "\\f", "\\r", "\\t"]).as_bytes(),
                ),
                1 => text.extend(format!("\\u{:04x}", self.random.below(0x1_0000)).as_bytes()),
                2 if len > 10 => text.extend(
                    format!(
                        "\\uD{:03X}\\ud{:03x}",
                        0x800 + self.random.below(0x400),
                        0xb00 + self.random.below(0x500)
                    )
                    .as_bytes(),
                ),
                3 => text.push(self.random.pick(b"\x01\x1f\x7f\x80\xff\xc3\xa9")),
                _ => text.push(self.random.pick(b"abcdefg 0123{}[],:")),
            }
        }
        text.push(b'"');
    }

    fn damage(&mut self, text: &mut Vec<u8>, with: &[u8]) {
        for _ in 0..1 + self.random.below(3) {
            if text.is_empty() {
                return;
            }
            let at = self.random.below(text.len() as u64) as usize;
            match self.random.below(4) {
                0 => text[at] = self.random.pick(with),
                1 => text.insert(at, self.random.pick(with)),
                2 => drop(text.remove(at)),
                _ => text.truncate(at),
            }
        }
    }

    fn cjson_settings(&mut self) -> String {
        let function = self.random.pick(&[
            "encode_sparse_array",
            "encode_max_depth",
            "decode_max_depth",
            "encode_number_precision",
            "encode_keep_buffer",
            "encode_invalid_numbers",
            "decode_invalid_numbers",
            "encode",
            "decode",
        ]);
        let mut args = Vec::new();
        while self.random.below(3) > 0 {
            args.push(match self.random.below(4) {
                0 => self.argument(),
                1 => {
                    self.random.pick(&["true", "false", "'on'", "'off'", "'null'", "'x'", "nil"]).to_string()
                }
                _ => self.random.below(20).to_string(),
            });
        }
        let args = args.join(",");
        format!(
            "local j=cjson.new() local function t(...) return j.{function}() end return t(), pcall(j.{function},{args}), t(), j.{function}({args})"
        )
    }

    fn cjson_deep(&mut self) -> String {
        let depth = if self.random.one_in(4) {
            self.random.pick(&[999, 1000, 1001])
        } else {
            1 + self.random.below(20)
        };
        let begin = self.random.pick(&["[", "{\"a\":", "[1,", "{\"a\":1,\"b\":["]);
        match self.random.below(3) {
            0 => format!("return cjson.decode(string.rep('{begin}',{depth}))"),
            1 => format!("return cjson.decode(string.rep('[',{depth})..string.rep(']',{depth}))"),
            _ => format!(
                "local t={} for i=1,{depth} do t={} end return cjson.encode(t)",
                self.value(1),
                self.random.pick(&["{t}", "{a=t}", "{1,t}", "{b=2,a=t}"])
            ),
        }
    }

    // cmsgpack

    fn cmsgpack_pack(&mut self) -> String {
        let values: Vec<String> = (0..self.random.below(4)).map(|_| self.value(4)).collect();
        let values = values.join(",");
        match self.random.below(4) {
            0 | 1 => format!("return cmsgpack.pack({values})"),
            2 => format!("return cmsgpack.unpack(cmsgpack.pack({values}))"),
            _ => format!("return pcall(cmsgpack.pack,{values})"),
        }
    }

    fn message(&mut self, bytes: &mut Vec<u8>, depth: u64) {
        let tag = match self.random.below(6) {
            0 if depth > 0 => self.random.next() as u8,
            3 if depth == 0 => 0xd9,
            1 => self.random.pick(&[0xc0, 0xc2, 0xc3]),
            2 => 0xca + self.random.below(10) as u8,
            3 => 0xd9 + self.random.below(7) as u8,
            4 => 0xa0 + self.random.below(10) as u8,
            _ if depth == 0 => self.random.next() as u8 & 0x7f,
            _ => 0x80 + self.random.below(0x20) as u8 % 5 + 0x10 * self.random.below(2) as u8,
        };
        bytes.push(tag);
        let following = match tag {
            0xcc | 0xd0 => 1,
            0xcd | 0xd1 => 2,
            0xca | 0xce | 0xd2 => 4,
            0xcb | 0xcf | 0xd3 => 8,
            0xa0..=0xbf => u64::from(tag & 0x1f),
            _ => 0,
        };
        bytes.extend((0..following).map(|_| self.random.next() as u8));
        let count = self.random.below(5);
        match tag {
            0xd9 => bytes.push(count as u8),
            0xda | 0xdc | 0xde => bytes.extend([0, count as u8]),
            0xdb | 0xdd | 0xdf => bytes.extend([0, 0, 0, count as u8]),
            _ => {}
        }
        let elements = match tag {
            0x80..=0x8f => 2 * u64::from(tag & 0xf),
            0x90..=0x9f => u64::from(tag & 0xf),
            0xdc | 0xdd => count,
            0xde | 0xdf => 2 * count,
            _ => 0,
        };
        if matches!(tag, 0xd9..=0xdb) {
            bytes.extend((0..count).map(|_| self.random.pick(LETTERS)));
        }
        let is_map = matches!(tag, 0x80..=0x8f | 0xde | 0xdf);
        for at in 0..if depth == 0 { 0 } else { elements } {
            // Of several keys, none is a table.
            let is_key = is_map && elements > 2 && at % 2 == 0;
            self.message(bytes, if is_key { 0 } else { depth - 1 });
        }
    }

    fn cmsgpack_unpack(&mut self) -> String {
        let mut bytes = Vec::new();
        for _ in 0..self.random.below(4) {
            self.message(&mut bytes, 4);
        }
        if self.random.one_in(3) {
            self.damage(&mut bytes, b"\x00\x7f\x80\x81\x90\x93\xa3\xc0\xc1\xc4\xca\xcf\xd9\xdb\xdd\xdf\xff");
        }
        let bytes = quoted(&bytes);
        match self.random.below(6) {
            0 | 1 => format!("return cmsgpack.unpack({bytes})"),
            2 => format!("return cmsgpack.unpack_one({bytes},{})", self.offset()),
            3 => format!("return cmsgpack.unpack_limit({bytes},{},{})", self.offset(), self.offset()),
            4 => format!("return cmsgpack.pack(cmsgpack.unpack({bytes}))"),
            _ => format!("return cjson.encode({{cmsgpack.unpack({bytes})}})"),
        }
    }

    fn offset(&mut self) -> String {
        match self.random.below(6) {
            0 => self.argument(),
            1 => self.random.pick(&["-1", "2^31", "2^32", "2^63", "-2^63", "1/0", "'1'", "0.9"]).to_string(),
            _ => self.random.below(6).to_string(),
        }
    }

    fn cmsgpack_deep(&mut self) -> String {
        let value = self.value(1);
        let depth = 12 + self.random.below(8);
        match self.random.below(4) {
            0 => format!("local t={value} for i=1,{depth} do t={{t}} end return cmsgpack.pack(t)"),
            1 => format!(
                "local t={value} for i=1,{depth} do t={{a=t}} end return cmsgpack.unpack(cmsgpack.pack(t))"
            ),
            2 => format!(
                "local t={{}} for i=1,{} do t[i]=i end return cmsgpack.pack(t)",
                if self.random.one_in(30) { 65536 } else { self.random.pick(&[15, 16, 17, 100]) }
            ),
            _ => format!(
                "return cmsgpack.unpack(string.rep({},{})..'\\1')",
                quoted(self.random.pick(&[
                    &b"\x91"[..],
                    b"\x81\x01",
                    b"\x81",
                    b"\x92\x01",
                    b"\xdd\0\0\0\x01"
                ])),
                self.random.pick(&[10, 100, 1000, 3000, 4500, 9000])
            ),
        }
    }

    // struct and bit

    fn format(&mut self) -> String {
        let mut format = String::new();
        for _ in 0..self.random.below(7) {
            let option = self.random.pick(b"bBhHlLTiIiIfdscccxx><!! bhid");
            format.push(option.into());
            if matches!(option, b'i' | b'I' | b'c' | b'!') && self.random.one_in(2) {
                format += &match self.random.below(12) {
                    0 => self
                        .random
                        .pick(&["2147483647", "2147483648", "99999999999", "33", "4294967295", "007"])
                        .to_string(),
                    1..=3 => self.random.pick(&["1", "2", "4", "8", "16", "32"]).to_string(),
                    4 => "0".to_string(),
                    _ => self.random.below(20).to_string(),
                };
            }
            if self.random.one_in(40) {
                format.push(self.random.pick(b"qQn?z5\x01\x7f").into());
            }
        }
        format
    }

    fn struct_pack(&mut self) -> String {
        let format = self.format();
        let mut args = String::new();
        for option in format.bytes() {
            let arg = match option {
                b's' | b'c' if !self.random.one_in(20) => self.string(),
                b'b' | b'B' | b'h' | b'H' | b'l' | b'L' | b'T' | b'i' | b'I' | b'f' | b'd' => self.argument(),
                _ => continue,
            };
            args += &format!(",{arg}");
        }
        let format = quoted(format.as_bytes());
        let function =
            self.random.pick(&["return struct.pack(", "return struct.pack(", "return pcall(struct.pack,"]);
        format!("{function}{format}{args})")
    }

    fn struct_unpack(&mut self) -> String {
        let format = quoted(self.format().as_bytes());
        let data = quoted(&self.bytes(50));
        match self.random.below(3) {
            0 => format!("return struct.unpack({format},{data},{})", self.offset()),
            1 => format!("return struct.unpack({format},{data}..{data},{})", 1 + self.random.below(8)),
            _ => format!("return struct.unpack({format},{data})"),
        }
    }

    fn struct_size(&mut self) -> String {
        format!("return struct.size({})", quoted(self.format().as_bytes()))
    }

    fn bit(&mut self) -> String {
        let function = self.random.pick(&[
            "tobit", "tohex", "tohex", "bnot", "band", "bor", "bxor", "lshift", "rshift", "arshift", "rol",
            "ror", "bswap",
        ]);
        let count = self.random.pick(&[0, 1, 1, 2, 2, 2, 2, 3, 4]);
        let args: Vec<String> = (0..count).map(|_| self.argument()).collect();
        format!("return bit.{function}({})", args.join(","))
    }
}

/// A Lua string literal.
fn quoted(bytes: &[u8]) -> String {
    let mut literal = String::from("'");
    for byte in bytes {
        match byte {
            b' '..=b'~' if !matches!(byte, b'\'' | b'\\') => literal.push(char::from(*byte)),
            _ => literal += &format!("\\{byte:03}"),
        }
    }
    literal.push('\'');
    literal
}
