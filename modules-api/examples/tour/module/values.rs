//! A type of values: a bag of words with a count.

use super::background::see;
use shardis_modules_api::*;

#[derive(Clone, Default)]
struct Bag {
    /// In the order of their texts.
    words: Vec<Word>,
}

#[derive(Clone)]
struct Word {
    text: ServerBytes,
    count: u64,
}

impl Bag {
    /// How many there are of a word, which may be changed.
    fn count_mut(&mut self, text: &[u8]) -> &mut u64 {
        let at = self.words.binary_search_by(|word| (*word.text).cmp(text)).unwrap_or_else(|at| {
            self.words.insert(at, Word { text: ServerBytes::new(text), count: 0 });
            at
        });
        &mut self.words[at].count
    }
}

static BAG: TypeHandle<Bag> = TypeHandle::new();

pub fn load(loader: &mut Loader<'_>) -> Result<(), Error> {
    loader.data_type(&BAG)?;
    loader.command::<Put>()?;
    loader.command::<Look>()
}

impl DataType for Bag {
    const NAME: &'static str = "tour--bag";
    const VERSION: i32 = 1;

    fn save(&self, to: &mut Saver<'_>) {
        to.unsigned(self.words.len() as u64);
        for Word { text, count } in &self.words {
            to.bytes(text);
            to.unsigned(*count);
        }
        to.signed(-1);
        to.double(0.5);
    }

    fn load(from: &mut Loading<'_>, version: i32) -> Option<Bag> {
        let mut bag = Bag::default();
        for _ in 0..from.unsigned()? {
            let (text, count) = (from.bytes()?, from.unsigned()?);
            *bag.count_mut(&text) = count;
        }
        let is_whole = from.signed()? == -1 && from.double()? == 0.5;
        (is_whole && version == 1).then_some(bag)
    }

    fn rewrite(&self, key: ModuleStr<'_>, aof: &mut Aof<'_>) {
        for Word { text, count } in &self.words {
            aof.emit(c"tour.put", &[key.as_bytes(), text, count.to_string().as_bytes()]);
        }
    }

    fn memory_bytes(&self) -> usize {
        size_of::<Bag>() + self.words.iter().map(|word| word.text.len() + 1000).sum::<usize>()
    }

    fn digest(&self, digest: &mut Digest<'_>) {
        for Word { text, count } in &self.words {
            digest.bytes(text);
            digest.integer(*count as i64);
            digest.end_sequence();
        }
    }

    fn copy(&self) -> Option<Bag> {
        Some(self.clone())
    }

    fn free_effort(&self) -> usize {
        self.words.len()
    }

    fn unlinked(&self, key: ModuleStr<'_>) {
        see(format!("unlinked {key:?}"));
    }

    fn defrag(&mut self, defrag: &mut Defrag<'_>) -> bool {
        let first = usize::try_from(defrag.cursor()).unwrap_or(0);
        for at in first..self.words.len() {
            if at > first && defrag.should_stop() {
                defrag.set_cursor(at as u64);
                return false;
            }
            defrag.bytes(&mut self.words[at].text);
        }
        true
    }

    const HAS_AUX: bool = true;

    fn save_aux(to: &mut Saver<'_>, is_before_keys: bool) {
        to.unsigned(u64::from(is_before_keys));
    }

    fn load_aux(from: &mut Loading<'_>, _version: i32, is_before_keys: bool) -> Option<()> {
        (from.unsigned()? == u64::from(is_before_keys)).then_some(())
    }
}

/// TOUR.PUT key word count. Reply: integer, how many of that word there are then. Errors: WRONGTYPE.
pub struct Put;

impl Command for Put {
    const ROW: Row = Row {
        flags: "write deny-oom",
        keys: &[KeySpec::at(1, KeyFlags::RW.and(KeyFlags::UPDATE))],
        ..Row::new("tour.put", 4)
    };

    fn run(ctx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
        let count = u64::try_from(args[3].to_integer()?).map_err(|_| Error::NOT_AN_INTEGER)?;

        let mut key = ctx.open_for_writing(&args[1])?;
        if key.value(&BAG)?.is_none() {
            key.set_value(&BAG, Bag::default())?;
        }
        let bag = key.value_mut(&BAG)?.expect("it was just set");
        let total = bag.count_mut(args[2].as_bytes());
        *total += count;
        let total = *total;
        drop(key);
        ctx.replicate_verbatim();

        ctx.reply().integer(total as i64);
        Ok(())
    }
}

/// TOUR.LOOK key. Reply: map of words and their counts. Errors: WRONGTYPE.
pub struct Look;

impl Command for Look {
    const ROW: Row = Row {
        flags: "readonly",
        keys: &[KeySpec::at(1, KeyFlags::RO.and(KeyFlags::ACCESS))],
        ..Row::new("tour.look", 2)
    };

    fn run(ctx: &mut Context<'_>, args: Args<'_>) -> CommandResult {
        let key = ctx.open(&args[1])?;
        let bag = key.value(&BAG)?;

        let reply = ctx.reply();
        let Some(bag) = bag else {
            reply.null();
            return Ok(());
        };
        reply.map(bag.words.len());
        for Word { text, count } in &bag.words {
            reply.bytes(text);
            reply.integer(*count as i64);
        }
        Ok(())
    }
}
