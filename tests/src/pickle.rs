//! As much of Python's pickle as it takes to find the tensors of a PyTorch checkpoint.
//!
//! Checkpoints of the reference also hold its configuration, objects of classes that only Python knows; readers that insist on
//! understanding everything give up there. Here whatever is not a container, a number, a text or a tensor is opaque.

use std::collections::HashMap;

/// A value, by its place in a [`Heap`]: pickles share values and fill containers after naming them.
pub(crate) type Id = usize;

/// What a value is.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Opaque,
    Int(i64),
    Text(String),
    Global(String),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    /// Pairs in the order they were put in.
    Dict(Vec<(Id, Id)>),
    /// Type and key of a storage.
    Storage(String, String),
    /// Storage, offset, sizes, strides.
    Tensor(Id, Vec<i64>, Vec<i64>, Vec<i64>),
}

/// All values of a pickle.
pub(crate) struct Heap {
    values: Vec<Value>,
    root: Id,
}

impl Heap {
    pub(crate) fn root(&self) -> Id {
        self.root
    }

    pub(crate) fn value(&self, id: Id) -> &Value {
        &self.values[id]
    }

    /// The pairs of a dictionary whose keys are texts.
    pub(crate) fn entries(&self, id: Id) -> Result<Vec<(&str, Id)>, String> {
        let Value::Dict(pairs) = &self.values[id] else {
            return Err("a dictionary was expected".to_owned());
        };
        let text = |key: Id| match &self.values[key] {
            Value::Text(text) => Ok(text.as_str()),
            other => Err(format!("a text was expected as a key, found {other:?}")),
        };
        pairs
            .iter()
            .map(|(key, value)| Ok((text(*key)?, *value)))
            .collect()
    }

    /// The value of a key of a dictionary.
    pub(crate) fn get(&self, id: Id, key: &str) -> Result<Id, String> {
        let found = self.entries(id)?.into_iter().find(|(name, _)| *name == key);
        found
            .map(|(_, value)| value)
            .ok_or_else(|| format!("there is no key {key}"))
    }
}

/// Reads a pickle.
pub(crate) fn read(bytes: &[u8]) -> Result<Heap, String> {
    let mut machine = Machine {
        bytes,
        values: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
    };
    while machine.step()? {}
    let root = machine.pop()?;
    Ok(Heap {
        values: machine.values,
        root,
    })
}

struct Machine<'a> {
    bytes: &'a [u8],
    values: Vec<Value>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

impl Machine<'_> {
    /// Runs one instruction; false at the end.
    fn step(&mut self) -> Result<bool, String> {
        let [code] = self.take()?;
        match code {
            0x80 => drop(self.take::<1>()?),
            b'.' => return Ok(false),
            b'(' => self.marks.push(self.stack.len()),
            b'}' => self.push(Value::Dict(Vec::new())),
            b']' => self.push(Value::List(Vec::new())),
            b')' => self.push(Value::Tuple(Vec::new())),
            b'N' | 0x88 | 0x89 => self.push(Value::Opaque),
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
                self.take_slice(length.into())?;
                self.push(Value::Opaque);
            }
            b'G' => {
                self.take::<8>()?;
                self.push(Value::Opaque);
            }
            b'X' => {
                let length = u32::from_le_bytes(self.take()?);
                let text = String::from_utf8_lossy(self.take_slice(length as usize)?).into_owned();
                self.push(Value::Text(text));
            }
            b'c' => {
                let name = format!("{}.{}", self.take_line()?, self.take_line()?);
                self.push(Value::Global(name));
            }
            b'q' => {
                let [key] = self.take()?;
                self.remember(key.into())?;
            }
            b'r' => {
                let key = u32::from_le_bytes(self.take()?);
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
            b't' => self.tuple_from_mark()?,
            0x85..=0x87 => {
                let first = self
                    .stack
                    .len()
                    .checked_sub(usize::from(code - 0x84))
                    .ok_or("an empty stack")?;
                let items = self.stack.split_off(first);
                self.push(Value::Tuple(items));
            }
            b's' => {
                let first = self.stack.len().checked_sub(2).ok_or("an empty stack")?;
                self.marks.push(first);
                self.set_items()?;
            }
            b'u' => self.set_items()?,
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])?;
            }
            b'e' => {
                let items = self.pop_mark()?;
                self.append(items)?;
            }
            b'Q' => self.storage()?,
            b'R' => self.call()?,
            0x81 => {
                self.pop()?;
                self.pop()?;
                self.push(Value::Opaque);
            }
            // An object's state: of an ordered dictionary or an opaque one, neither of which matters.
            b'b' => drop(self.pop()?),
            other => return Err(format!("instruction 0x{other:02x} is not known")),
        }
        Ok(true)
    }

    fn take_slice(&mut self, count: usize) -> Result<&[u8], String> {
        let (taken, rest) = self
            .bytes
            .split_at_checked(count)
            .ok_or("the pickle ends early")?;
        self.bytes = rest;
        Ok(taken)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let taken = self.take_slice(N)?;
        Ok(taken.try_into().expect("as many bytes as asked for"))
    }

    fn take_line(&mut self) -> Result<String, String> {
        let length = self
            .bytes
            .iter()
            .position(|byte| *byte == b'\n')
            .ok_or("the pickle ends early")?;
        let line = String::from_utf8_lossy(self.take_slice(length)?).into_owned();
        self.take::<1>()?;
        Ok(line)
    }

    fn push(&mut self, value: Value) {
        self.stack.push(self.values.len());
        self.values.push(value);
    }

    fn pop(&mut self) -> Result<Id, String> {
        self.stack.pop().ok_or_else(|| "an empty stack".to_owned())
    }

    fn top(&self) -> Result<Id, String> {
        self.stack
            .last()
            .copied()
            .ok_or_else(|| "an empty stack".to_owned())
    }

    fn pop_mark(&mut self) -> Result<Vec<Id>, String> {
        let first = self
            .marks
            .pop()
            .filter(|first| *first <= self.stack.len())
            .ok_or("no mark")?;
        Ok(self.stack.split_off(first))
    }

    fn remember(&mut self, key: u32) -> Result<(), String> {
        let id = self.top()?;
        self.memo.insert(key, id);
        Ok(())
    }

    fn recall(&mut self, key: u32) -> Result<(), String> {
        let id = self
            .memo
            .get(&key)
            .ok_or("a value is used before it is named")?;
        self.stack.push(*id);
        Ok(())
    }

    fn tuple_from_mark(&mut self) -> Result<(), String> {
        let items = self.pop_mark()?;
        self.push(Value::Tuple(items));
        Ok(())
    }

    fn set_items(&mut self) -> Result<(), String> {
        let items = self.pop_mark()?;
        let target = self.top()?;
        if let Value::Dict(pairs) = &mut self.values[target] {
            pairs.extend(
                items
                    .as_chunks::<2>()
                    .0
                    .iter()
                    .map(|[key, value]| (*key, *value)),
            );
        }
        Ok(())
    }

    fn append(&mut self, items: Vec<Id>) -> Result<(), String> {
        let target = self.top()?;
        if let Value::List(list) = &mut self.values[target] {
            list.extend(items);
        }
        Ok(())
    }

    /// `('storage', type, key, device, count)`
    fn storage(&mut self) -> Result<(), String> {
        let id = self.pop()?;
        let value = match self.tuple(id) {
            Some([_, kind, key, ..]) => match (&self.values[*kind], &self.values[*key]) {
                (Value::Global(kind), Value::Text(key)) => {
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
        let value = match &self.values[function] {
            Value::Global(name) if name == "collections.OrderedDict" => Value::Dict(Vec::new()),
            Value::Global(name) if name == "torch._utils._rebuild_tensor_v2" => {
                match self.tuple(arguments) {
                    Some([storage, offset, shape, strides, ..]) => {
                        let offset = self.integers(std::slice::from_ref(offset));
                        let numbers = |id: &Id| self.integers(self.tuple(*id).unwrap_or_default());
                        Value::Tensor(*storage, offset, numbers(shape), numbers(strides))
                    }
                    _ => Value::Opaque,
                }
            }
            _ => Value::Opaque,
        };
        self.push(value);
        Ok(())
    }

    fn tuple(&self, id: Id) -> Option<&[Id]> {
        match &self.values[id] {
            Value::Tuple(items) => Some(items),
            _ => None,
        }
    }

    fn integers(&self, ids: &[Id]) -> Vec<i64> {
        let integers = ids.iter().filter_map(|id| match self.values[*id] {
            Value::Int(value) => Some(value),
            _ => None,
        });
        integers.collect()
    }
}
