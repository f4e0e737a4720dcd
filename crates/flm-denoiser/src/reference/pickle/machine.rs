//! The stack machine that runs pickles.

use super::refused::is_refused;
use super::{Heap, Id, Value};
use std::collections::HashMap;

/// Parses a pickle to its end.
pub(super) fn run(bytes: &[u8]) -> Result<Heap, String> {
    let mut machine = Machine {
        rest: bytes,
        values: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
    };
    while machine.step()? {
        if machine.values.len() > MOST_VALUES || machine.stack.len() > MOST_VALUES {
            return Err(
                "its pickle has more than a million values, which no checkpoint has".to_owned(),
            );
        }
    }
    let root = machine.pop()?;
    Ok(Heap {
        values: machine.values,
        root,
    })
}

/// Limits that no checkpoint exceeds. The first two bound the size of copies and the third their
/// number, so that a pickle takes at most some hundred megabytes.
const MOST_DIMENSIONS: usize = 16;
const LONGEST_NAME: usize = 256;
const MOST_VALUES: usize = 1 << 20;

struct Machine<'a> {
    rest: &'a [u8],
    values: Vec<Value>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

const ENDS_EARLY: &str = "its pickle ends early";
const UNDERFLOW: &str = "its pickle pops from an empty stack";

impl<'a> Machine<'a> {
    /// Executes one instruction. Returns false at the end.
    fn step(&mut self) -> Result<bool, String> {
        let [code] = self.take()?;
        match code {
            b'.' => return Ok(false),
            // Protocol and frame have no effect.
            0x80 => drop(self.take::<1>()?),
            0x95 => drop(self.take::<8>()?),

            b'N' => self.push(Value::None),
            0x88 => self.push(Value::Bool(true)),
            0x89 => self.push(Value::Bool(false)),
            b'K' => {
                let [value] = self.take()?;
                self.push(Value::Int(value.into()));
            }
            b'M' => {
                let value = u16::from_le_bytes(self.take()?);
                self.push(Value::Int(value.into()));
            }
            b'J' => {
                let value = i32::from_le_bytes(self.take()?);
                self.push(Value::Int(value.into()));
            }
            0x8a => {
                let [length] = self.take()?;
                self.long(length.into())?;
            }
            0x8b => {
                let length = u32::from_le_bytes(self.take()?);
                self.long(u64::from(length))?;
            }
            b'G' => {
                let value = f64::from_be_bytes(self.take()?);
                self.push(Value::Float(value));
            }
            b'I' | b'L' | b'F' => {
                let line = self.line()?;
                self.push(spelt_number(line));
            }

            0x8c => {
                let [length] = self.take()?;
                self.text(length.into())?;
            }
            b'X' => {
                let length = u32::from_le_bytes(self.take()?);
                self.text(length.into())?;
            }
            0x8d => {
                let length = u64::from_le_bytes(self.take()?);
                self.text(length)?;
            }
            b'V' => {
                let text = self.line()?.to_owned();
                self.push(Value::Text(text));
            }
            b'S' => {
                self.line()?;
                self.push(Value::Opaque);
            }
            b'C' | b'U' => {
                let [length] = self.take()?;
                self.bytes(length.into())?;
            }
            b'B' | b'T' => {
                let length = u32::from_le_bytes(self.take()?);
                self.bytes(length.into())?;
            }
            0x8e | 0x96 => {
                let length = u64::from_le_bytes(self.take()?);
                self.bytes(length)?;
            }

            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.global(module, name)?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Value::Text(module), Value::Text(name)) =
                    (self.values[module].clone(), self.values[name].clone())
                else {
                    return Err("its pickle names a class by non-string values".to_owned());
                };
                self.global(&module, &name)?;
            }

            b'(' => self.marks.push(self.stack.len()),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.pop_mark()?),
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
            }
            b'q' => {
                let [key] = self.take()?;
                self.remember(key.into())?;
            }
            b'r' => {
                let key = u32::from_le_bytes(self.take()?);
                self.remember(key)?;
            }
            b'p' => {
                let key = self.spelt_key()?;
                self.remember(key)?;
            }
            0x94 => {
                let key = u32::try_from(self.memo.len()).unwrap_or(u32::MAX);
                self.remember(key)?;
            }
            b'h' => {
                let [key] = self.take()?;
                self.recall(key.into())?;
            }
            b'j' => {
                let key = u32::from_le_bytes(self.take()?);
                self.recall(key)?;
            }
            b'g' => {
                let key = self.spelt_key()?;
                self.recall(key)?;
            }

            b')' => self.push(Value::Tuple(Vec::new())),
            0x85..=0x87 => {
                let items = self.pop_many(usize::from(code - 0x84))?;
                self.push(Value::Tuple(items));
            }
            b't' => {
                let items = self.pop_mark()?;
                self.push(Value::Tuple(items));
            }
            b']' => self.push(Value::List(Vec::new())),
            b'l' => {
                let items = self.pop_mark()?;
                self.push(Value::List(items));
            }
            b'a' => {
                let items = self.pop_many(1)?;
                self.append(items)?;
            }
            b'e' => {
                let items = self.pop_mark()?;
                self.append(items)?;
            }
            b'}' => self.push(Value::Dict(Vec::new())),
            b'd' => {
                let items = self.pop_mark()?;
                self.push(Value::Dict(pairs(&items)));
            }
            b's' => {
                let items = self.pop_many(2)?;
                self.set_items(&items)?;
            }
            b'u' => {
                let items = self.pop_mark()?;
                self.set_items(&items)?;
            }
            0x8f => self.push(Value::Opaque),
            0x90 => drop(self.pop_mark()?),
            0x91 => {
                self.pop_mark()?;
                self.push(Value::Opaque);
            }

            b'Q' => self.storage()?,
            b'R' => self.call()?,
            0x81 => {
                self.pop()?;
                self.instance()?;
            }
            0x92 => {
                self.pop_many(2)?;
                self.instance()?;
            }
            b'b' => self.build()?,
            other => {
                return Err(format!(
                    "its pickle has instruction 0x{other:02x}, which checkpoints do not use"
                ));
            }
        }
        Ok(true)
    }

    fn slice(&mut self, count: u64) -> Result<&'a [u8], String> {
        let count = usize::try_from(count).map_err(|_| ENDS_EARLY)?;
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(ENDS_EARLY)?;
        self.rest = rest;
        Ok(taken)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(ENDS_EARLY)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn line(&mut self) -> Result<&'a str, String> {
        let length = self.rest.iter().position(|byte| *byte == b'\n');
        let line = self.slice(length.ok_or(ENDS_EARLY)? as u64)?;
        self.take::<1>()?;
        std::str::from_utf8(line).map_err(|_| "its pickle has a name that is not UTF-8".to_owned())
    }

    fn spelt_key(&mut self) -> Result<u32, String> {
        let line = self.line()?;
        line.parse()
            .map_err(|_| format!("its pickle has the memo key {line:?}, expected a number"))
    }

    fn push(&mut self, value: Value) {
        self.stack.push(self.values.len());
        self.values.push(value);
    }

    /// Integers above 64 bits, such as seeds, are opaque.
    fn long(&mut self, length: u64) -> Result<(), String> {
        let bytes = self.slice(length)?;
        let value = if bytes.len() > 8 {
            Value::Opaque
        } else {
            let sign = bytes.last().is_some_and(|last| last & 0x80 != 0);
            let mut whole = [if sign { 0xff } else { 0 }; 8];
            whole[..bytes.len()].copy_from_slice(bytes);
            Value::Int(i64::from_le_bytes(whole))
        };
        self.push(value);
        Ok(())
    }

    fn text(&mut self, length: u64) -> Result<(), String> {
        let text = String::from_utf8_lossy(self.slice(length)?).into_owned();
        self.push(Value::Text(text));
        Ok(())
    }

    fn bytes(&mut self, length: u64) -> Result<(), String> {
        self.slice(length)?;
        self.push(Value::Opaque);
        Ok(())
    }

    fn global(&mut self, module: &str, name: &str) -> Result<(), String> {
        if is_refused(module, name) {
            return Err(format!(
                "it imports {module}.{name}, which no checkpoint needs, so the file may be malicious; nothing in the pickle was run"
            ));
        }
        if module.len() + name.len() > LONGEST_NAME {
            return Err("its pickle has a class name of more than 256 bytes".to_owned());
        }
        self.push(Value::Global(format!("{module}.{name}")));
        Ok(())
    }

    /// The lowest stack position that may be popped. Values below the last mark belong to an
    /// outer construct.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop_many(&mut self, count: usize) -> Result<Vec<Id>, String> {
        let first = self.stack.len().checked_sub(count);
        let first = first.filter(|first| *first >= self.floor());
        Ok(self.stack.split_off(first.ok_or(UNDERFLOW)?))
    }

    fn pop(&mut self) -> Result<Id, String> {
        Ok(self.pop_many(1)?[0])
    }

    fn top(&self) -> Result<Id, String> {
        let top = self
            .stack
            .last()
            .filter(|_| self.stack.len() > self.floor());
        top.copied().ok_or_else(|| UNDERFLOW.to_owned())
    }

    fn pop_mark(&mut self) -> Result<Vec<Id>, String> {
        let first = self.marks.pop().ok_or("its pickle lacks a mark")?;
        Ok(self.stack.split_off(first))
    }

    fn remember(&mut self, key: u32) -> Result<(), String> {
        let id = self.top()?;
        self.memo.insert(key, id);
        Ok(())
    }

    fn recall(&mut self, key: u32) -> Result<(), String> {
        let id = self.memo.get(&key);
        let id = id.ok_or("its pickle uses a value before its definition")?;
        self.stack.push(*id);
        Ok(())
    }

    fn set_items(&mut self, items: &[Id]) -> Result<(), String> {
        let target = self.top()?;
        if let Value::Dict(all) = &mut self.values[target] {
            all.extend(pairs(items));
        }
        Ok(())
    }

    fn append(&mut self, items: Vec<Id>) -> Result<(), String> {
        let target = self.top()?;
        if let Value::List(all) = &mut self.values[target] {
            all.extend(items);
        }
        Ok(())
    }

    /// `('storage', type, key, device, count)`
    fn storage(&mut self) -> Result<(), String> {
        let id = self.pop()?;
        let value = match self.tuple(id) {
            Some([_, kind, key, ..]) => match (&self.values[*kind], &self.values[*key]) {
                (Value::Global(kind), Value::Text(key)) if key.len() <= LONGEST_NAME => {
                    Value::Storage(kind.clone(), key.clone())
                }
                _ => Value::Opaque,
            },
            _ => Value::Opaque,
        };
        self.push(value);
        Ok(())
    }

    fn call(&mut self) -> Result<(), String> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        let name = match &self.values[function] {
            Value::Global(name) => name.as_str(),
            _ => "",
        };
        let value = match name {
            "collections.OrderedDict" | "collections.defaultdict" => Value::Dict(Vec::new()),
            "torch._utils._rebuild_tensor_v2" => self.tensor(arguments).unwrap_or(Value::Opaque),
            // A wrapped tensor.
            "torch._utils._rebuild_parameter" => match self.tuple(arguments) {
                Some([tensor, ..]) => match &self.values[*tensor] {
                    tensor @ Value::Tensor(..) => tensor.clone(),
                    _ => Value::Opaque,
                },
                _ => Value::Opaque,
            },
            _ => Value::Opaque,
        };
        self.push(value);
        Ok(())
    }

    /// `(storage, offset, sizes, strides, …)`
    fn tensor(&self, arguments: Id) -> Option<Value> {
        let [storage, offset, sizes, strides, ..] = self.tuple(arguments)? else {
            return None;
        };
        let number = |id: &Id| match self.values[*id] {
            Value::Int(value) => usize::try_from(value).ok(),
            _ => None,
        };
        let numbers = |id: &Id| {
            let items = self.tuple(*id)?;
            let numbers = items.iter().take(MOST_DIMENSIONS).map(number);
            (items.len() <= MOST_DIMENSIONS).then(|| numbers.collect::<Option<Vec<_>>>())?
        };
        Some(Value::Tensor(
            *storage,
            number(offset)?,
            numbers(sizes)?,
            numbers(strides)?,
        ))
    }

    fn instance(&mut self) -> Result<(), String> {
        let class = self.pop()?;
        let value = match &self.values[class] {
            Value::Global(name) => Value::Object(name.clone(), None),
            _ => Value::Opaque,
        };
        self.push(value);
        Ok(())
    }

    /// Sets the state of the object on the stack. Other values, such as containers, stay unchanged.
    fn build(&mut self) -> Result<(), String> {
        let state = self.pop()?;
        let target = self.top()?;
        if let Value::Object(_, own) = &mut self.values[target] {
            *own = Some(state);
        }
        Ok(())
    }

    fn tuple(&self, id: Id) -> Option<&[Id]> {
        match &self.values[id] {
            Value::Tuple(items) => Some(items),
            _ => None,
        }
    }
}

fn pairs(items: &[Id]) -> Vec<(Id, Id)> {
    items
        .as_chunks::<2>()
        .0
        .iter()
        .map(|[key, value]| (*key, *value))
        .collect()
}

/// Parses a number of protocol 0, in which `01` and `00` are booleans.
fn spelt_number(line: &str) -> Value {
    match (line, line.trim_end_matches('L').parse(), line.parse()) {
        ("01", ..) => Value::Bool(true),
        ("00", ..) => Value::Bool(false),
        (_, Ok(value), _) => Value::Int(value),
        (_, _, Ok(value)) => Value::Float(value),
        _ => Value::Opaque,
    }
}
