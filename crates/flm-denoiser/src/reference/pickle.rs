//! A reader for the subset of Python's pickle that checkpoints need.
//!
//! A pickle is a program that can call any function when Python reads it. This reader calls
//! nothing. It understands containers, numbers, strings and tensors. Objects of Python classes keep
//! their class and state, and the results of other calls are opaque. A pickle that names a function
//! which no checkpoint needs is rejected ([`refused`]), because it is probably malicious.

mod machine;
mod refused;

/// The index of a value in a [`Heap`]. Pickles share values, and fill containers after naming them.
pub(super) type Id = usize;

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    /// Bytes, sets, integers above 64 bits, and results of calls.
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
    /// Key-value pairs in insertion order.
    Dict(Vec<(Id, Id)>),
    /// An instance of a class, and its state.
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
    /// A description of the fault.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, String> {
        machine::run(bytes)
    }

    /// Returns the top-level value.
    pub(super) fn root(&self) -> Id {
        self.root
    }

    pub(super) fn value(&self, id: Id) -> &Value {
        &self.values[id]
    }

    /// Returns the entries of a dictionary with string keys.
    pub(super) fn entries(&self, id: Id) -> Result<Vec<(&str, Id)>, String> {
        let Value::Dict(pairs) = self.value(id) else {
            return Err(format!(
                "expected a dictionary, found {}",
                self.value(id).kind()
            ));
        };
        let text = |key: Id| match self.value(key) {
            Value::Text(text) => Ok(text.as_str()),
            other => Err(format!("expected a string key, found {}", other.kind())),
        };
        pairs
            .iter()
            .map(|(key, value)| Ok((text(*key)?, *value)))
            .collect()
    }

    /// Returns the value of a key of a dictionary. The last duplicate wins, as in Python.
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
    /// Returns the kind of value, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Opaque | Self::Object(..) => "an object",
            Self::None => "None",
            Self::Bool(_) => "a boolean",
            Self::Int(_) | Self::Float(_) => "a number",
            Self::Text(_) => "a string",
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
