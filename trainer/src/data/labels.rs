//! What samples should make a network say: a class, or a value for each of the output's.

use super::{DataError, Wanted};
use sconce_lake::labels::Label;
use sconce_model::architecture::Task;

/// Between several that are said of one sample.
const BETWEEN: char = '|';
/// Said where none of the labels is one.
const NONE: &str = "none";
/// Names of classes, in an error.
const TOLD: usize = 10;

#[derive(Clone, Debug, PartialEq)]
pub enum Labels {
    /// Of each sample its class.
    Classes(Vec<u8>),
    /// Of each sample as many values as the network says, one sample after the other: of labels 1 or 0, or amounts.
    Values { of_each: usize, all: Vec<f32> },
}

/// Of one sample.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    Class(u8),
    Values(Vec<f32>),
}

impl Labels {
    /// Of no sample, for such a network.
    pub fn none(wanted: Wanted<'_>) -> Self {
        if wanted.tells_classes() {
            Self::Classes(vec![])
        } else {
            Self::Values { of_each: wanted.classes, all: vec![] }
        }
    }

    pub fn len(&self) -> usize {
        match self {
            Self::Classes(classes) => classes.len(),
            Self::Values { of_each, all } => all.len() / (*of_each).max(1),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Of each sample; none where they have values.
    pub fn classes(&self) -> &[u8] {
        match self {
            Self::Classes(classes) => classes,
            Self::Values { .. } => &[],
        }
    }

    /// Those of one sample; none where it has a class.
    pub fn values(&self, index: usize) -> &[f32] {
        match self {
            Self::Classes(_) => &[],
            Self::Values { of_each, all } => &all[index * of_each..][..*of_each],
        }
    }

    #[must_use]
    pub fn select(&self, indices: &[usize]) -> Self {
        match self {
            Self::Classes(classes) => Self::Classes(indices.iter().map(|&index| classes[index]).collect()),
            Self::Values { of_each, .. } => {
                let all = indices.iter().flat_map(|&index| self.values(index)).copied().collect();
                Self::Values { of_each: *of_each, all }
            }
        }
    }

    /// That of one more sample, of the same network.
    pub fn push(&mut self, said: &Said) {
        match (self, said) {
            (Self::Classes(classes), Said::Class(class)) => classes.push(*class),
            (Self::Values { all, .. }, Said::Values(values)) => all.extend(values),
            _ => unreachable!("one network wants classes of all samples, or values"),
        }
    }

    /// Those of more samples, of the same network.
    pub fn extend(&mut self, more: Self) {
        match (self, more) {
            (Self::Classes(classes), Self::Classes(more)) => classes.extend(more),
            (Self::Values { all, .. }, Self::Values { all: more, .. }) => all.extend(more),
            _ => unreachable!("one network wants classes of all samples, or values"),
        }
    }

    /// Numbers that were read as classes, as what a network says that tells one amount.
    pub fn as_amounts(classes: &[u8]) -> Self {
        Self::Values { of_each: 1, all: classes.iter().copied().map(f32::from).collect() }
    }
}

impl Said {
    /// As it is told apart from what others say.
    pub fn digested(&self) -> String {
        match self {
            Self::Class(class) => class.to_string(),
            Self::Values(values) => values.iter().map(|value| value.to_string()).collect::<Vec<_>>().join("|"),
        }
    }
}

/// What somebody said of a sample: a class by its name or its number; of labels the names of all that it has, or `none`; of amounts a number
/// each, in the order of the output. Several are parted by `|`.
pub fn said(label: &Label, wanted: Wanted<'_>) -> Result<Said, DataError> {
    let Wanted { classes: units, names, task, .. } = wanted;
    let parts = || label.value.split(BETWEEN).map(str::trim);
    let at = |name: &str| match names.iter().position(|known| known == name) {
        Some(named) => Some(named),
        None => name.parse::<usize>().ok().filter(|number| *number < units),
    };
    let found = match task {
        Task::Classification | Task::Anomaly => {
            at(&label.value).and_then(|class| u8::try_from(class).ok()).map(Said::Class)
        }
        Task::Multilabel => {
            let mut values = vec![0.0; units];
            let is_none = label.value == NONE && !names.iter().any(|name| name == NONE);
            let known = is_none || parts().all(|name| at(name).map(|label| values[label] = 1.0).is_some());
            known.then_some(Said::Values(values))
        }
        Task::Regression | Task::Count => {
            let least = if task == Task::Count { 0.0 } else { f32::MIN };
            let fits = |value: &f32| value.is_finite() && *value >= least;
            let values = parts().map(|number| number.parse::<f32>().ok().filter(fits)).collect::<Option<Vec<f32>>>();
            values.filter(|values| values.len() == units).map(Said::Values)
        }
    };
    found.ok_or_else(|| {
        let Label { id, value, by, file, .. } = label.clone();
        DataError::Strange { file, by, id, label: value, known: known(wanted).into() }
    })
}

/// What could have been said, for people.
fn known(Wanted { classes: units, names, task, .. }: Wanted<'_>) -> String {
    let are_numbers = names.iter().enumerate().all(|(class, name)| *name == class.to_string());
    let some = names.iter().take(TOLD).map(String::as_str).collect::<Vec<_>>().join(", ");
    let names = match names.len().saturating_sub(TOLD) {
        _ if are_numbers => format!("0 to {}", units.saturating_sub(1)),
        0 => some,
        more => format!("{some} and {more} more"),
    };
    match task {
        Task::Classification | Task::Anomaly => names,
        Task::Multilabel => format!("labels of {names}: several parted by |, or {NONE}"),
        Task::Regression | Task::Count => {
            let from = if task == Task::Count { " from 0 on" } else { "" };
            format!("{units} of a sample{from}: a number each, several parted by |")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;
    use sconce_model::preprocess::{Material, Preprocess};

    fn check(value: &str, wanted: Wanted<'_>, expected: Result<Said, &str>) {
        let (id, by, at, file) = ("ab".into(), "ann".into(), Timestamp::UNIX_EPOCH, "labels/f.csv".into());
        let got = said(&Label { id, value: value.into(), by, at, file }, wanted);
        let expected = expected
            .map_err(|known| format!("labels/f.csv: ann says that ab is \"{value}\"; the network tells {known}"));
        let got = got.map_err(|error| {
            assert!(error.is_final());
            error.to_string()
        });
        assert_eq!(got, expected);
    }

    #[test]
    fn a_label_of_no_class_is_told_with_who_said_it_where() {
        let preprocess = Preprocess { version: 1, input: Material::Image, steps: vec![] };
        let ten = Wanted::new(&preprocess, &[2], 10);
        check("9", ten, Ok(Said::Class(9)));
        ["10", "cat", "-1", "1.0"].into_iter().for_each(|value| check(value, ten, Err("0 to 9")));
        let names = ["cat".into(), "dog".into(), "0".into()];
        let named = Wanted { classes: 3, names: &names, ..ten };
        // A name counts, and else a number.
        [("dog", 1), ("0", 2), ("1", 1)]
            .into_iter()
            .for_each(|(value, class)| check(value, named, Ok(Said::Class(class))));
        check("Dog", named, Err("cat, dog, 0"));
    }

    #[test]
    fn several_are_said_of_one_sample_or_none() {
        let preprocess = Preprocess { version: 1, input: Material::Image, steps: vec![] };
        let names = ["cat".into(), "dog".into(), "bird".into()];
        let labels = Wanted { names: &names, task: Task::Multilabel, ..Wanted::new(&preprocess, &[2], 3) };
        let values = |values: &[f32]| Ok(Said::Values(values.into()));
        check("cat|bird", labels, values(&[1.0, 0.0, 1.0]));
        check(" 1 | cat", labels, values(&[1.0, 1.0, 0.0]));
        check("none", labels, values(&[0.0; 3]));
        check("cat|fish", labels, Err("labels of cat, dog, bird: several parted by |, or none"));
        let amounts = Wanted { classes: 2, names: &[], task: Task::Regression, ..labels };
        check("-1.5|20", amounts, values(&[-1.5, 20.0]));
        for wrong in ["1", "1|2|3", "1|x", "1|inf"] {
            check(wrong, amounts, Err("2 of a sample: a number each, several parted by |"));
        }
        let counts = Wanted { classes: 1, task: Task::Count, ..amounts };
        check("3", counts, values(&[3.0]));
        check("-1", counts, Err("1 of a sample from 0 on: a number each, several parted by |"));
    }
}
