//! As much of Python's pickle as it takes to find the tensors of a checkpoint and what it says about itself.
//!
//! A pickle is a program, and Python's reader runs it: whoever writes one can have any function called. Here nothing is ever called.
//! Containers, numbers, texts and tensors are understood, objects of Python's classes keep their class and state, and whatever else a
//! call would have made is opaque. A pickle that names a function which no checkpoint has a use for is refused
//! all the same ([`refused`]): its sender wanted something else than to share weights.

mod machine;
mod refused;

/// A value, by its place in a [`Heap`]: pickles share values and fill containers after naming them.
pub(super) type Id = usize;

/// What a value is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    /// Bytes, sets, long numbers, and what calls would have made.
    Opaque,
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    /// A class or a function, as `module.name`.
    Global(String),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    /// Pairs in the order they were put in.
    Dict(Vec<(Id, Id)>),
    /// An instance of a class, and the state that it was given.
    Object(String, Option<Id>),
    /// Type and key of a storage.
    Storage(String, String),
    /// Storage, offset, sizes, strides.
    Tensor(Id, usize, Vec<usize>, Vec<usize>),
}

/// All values of a pickle.
#[derive(Debug)]
pub(super) struct Heap {
    values: Vec<Value>,
    root: Id,
}

impl Heap {
    /// Reads a pickle of any protocol.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, String> {
        machine::run(bytes)
    }

    /// What the pickle is of.
    pub(super) fn root(&self) -> Id {
        self.root
    }

    pub(super) fn value(&self, id: Id) -> &Value {
        &self.values[id]
    }

    /// The pairs of a dictionary whose keys are texts.
    pub(super) fn entries(&self, id: Id) -> Result<Vec<(&str, Id)>, String> {
        let Value::Dict(pairs) = self.value(id) else {
            return Err(format!(
                "expected a dictionary, found {}",
                self.value(id).kind()
            ));
        };
        let text = |key: Id| match self.value(key) {
            Value::Text(text) => Ok(text.as_str()),
            other => Err(format!("expected a text as a key, found {}", other.kind())),
        };
        pairs
            .iter()
            .map(|(key, value)| Ok((text(*key)?, *value)))
            .collect()
    }

    /// The value of a key of a dictionary, if it has one. Of several the last counts, as in Python.
    pub(super) fn get(&self, id: Id, key: &str) -> Option<Id> {
        let Value::Dict(pairs) = self.value(id) else {
            return None;
        };
        let is_key = |found: Id| matches!(self.value(found), Value::Text(text) if text == key);
        let mut pairs = pairs.iter().rev();
        pairs
            .find(|(found, _)| is_key(*found))
            .map(|(_, value)| *value)
    }
}

impl Value {
    /// What it is, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Opaque | Self::Object(..) => "an object",
            Self::None => "None",
            Self::Bool(_) => "a truth value",
            Self::Int(_) | Self::Float(_) => "a number",
            Self::Text(_) => "a text",
            Self::Global(_) => "a class or a function",
            Self::Tuple(_) => "a tuple",
            Self::List(_) => "a list",
            Self::Dict(_) => "a dictionary",
            Self::Storage(..) => "a storage",
            Self::Tensor(..) => "a tensor",
        }
    }
}

#[cfg(test)]
mod tests;
