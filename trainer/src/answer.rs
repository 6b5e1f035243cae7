//! What a model said of a sample, and how good that is. Pure.

use sconce_model::architecture::Task;
use sconce_model::metrics::{argmax, f1, mean95, wilson95};
use sconce_model::ops::{Loss, softplus};

/// From which value on a label is said of a sample.
const SAID: f32 = 0.5;

/// What a model said of a sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The largest of its values, and how large it is: of classes, the one that it says and how sure it is.
    pub class: usize,
    pub confidence: f32,
    /// The metric is the mean of this. Of classes and labels 1 where all is right, else 0; of amounts the share of their variance that this
    /// sample does not take from what is explained: 1 where it is told exactly, below 0 where the mean of all would have been nearer.
    pub score: f64,
    /// As the run's own loss has it, before its smoothing and weights.
    pub loss: f64,
    pub told: Told,
}

/// Beside what it should have said.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    /// The label.
    Class(usize),
    /// Of each label, whether it was said and whether it is one.
    Labels(Vec<(bool, bool)>),
    /// Of each value, what was said and what it is.
    Amounts(Vec<(f64, f64)>),
}

/// What answers are held against: the task, its loss, and of amounts how they vary.
pub struct Judge {
    task: Task,
    loss: Loss,
    /// Of each value of the output.
    variances: Vec<f64>,
}

impl Judge {
    /// `rows` are what is to be said of all samples, where that is amounts; else nothing of them is read.
    pub fn new<'a>(task: Task, loss: Loss, rows: impl Iterator<Item = &'a [f32]> + Clone) -> Self {
        let of = |at: usize| variance(rows.clone().filter_map(|row| row.get(at)).map(|value| f64::from(*value)));
        let variances = (0..rows.clone().next().map_or(0, <[f32]>::len)).map(of).collect();
        Self { task, loss, variances }
    }

    /// Of a class that was to be said.
    pub fn of_class(&self, said: &[f32], label: usize) -> Answer {
        let class = argmax(said);
        // A label that was thought impossible costs as much as the smallest number.
        let loss = -f64::from(said[label].max(f32::MIN_POSITIVE)).ln();
        Answer { loss, score: share(class == label), ..largest(said, Told::Class(label)) }
    }

    /// Of values that were to be said.
    pub fn of_values(&self, said: &[f32], values: &[f32]) -> Answer {
        let n = values.len().max(1) as f64;
        let pairs = || said.iter().copied().zip(values.iter().copied());
        if self.task == Task::Multilabel {
            let told: Vec<(bool, bool)> = pairs().map(|(said, is)| (said >= SAID, is >= SAID)).collect();
            let of = |(said, is): (f32, f32)| {
                -f64::from(if is >= SAID { said } else { 1.0 - said }.max(f32::MIN_POSITIVE)).ln()
            };
            let (score, loss) = (share(told.iter().all(|(said, is)| said == is)), pairs().map(of).sum::<f64>() / n);
            return Answer { score, loss, ..largest(said, Told::Labels(told)) };
        }
        let finite = |said: f32| if said.is_finite() { said } else { f32::MAX };
        let loss =
            pairs().filter_map(|(said, is)| self.loss.of(finite(said), is)).map(|(loss, _)| loss).sum::<f64>() / n;
        // What is served of a count is what its rate is made of; what is no number is as far off as a number can be.
        let amount = |said: f32| match self.task {
            _ if !said.is_finite() => f64::from(f32::MAX),
            Task::Count => softplus(said),
            _ => f64::from(said),
        };
        let told: Vec<(f64, f64)> = pairs().map(|(said, is)| (amount(said), f64::from(is))).collect();
        let score = explained(&told, &self.variances);
        Answer { score, loss, ..largest(said, Told::Amounts(told)) }
    }
}

/// Twice over the values: what is all the same has none, to the bit.
fn variance(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let n = values.clone().count().max(1) as f64;
    let mean = values.clone().sum::<f64>() / n;
    values.map(|value| (value - mean).powi(2)).sum::<f64>() / n
}

/// The score of a sample's amounts, by what each varies over all samples.
fn explained(told: &[(f64, f64)], variances: &[f64]) -> f64 {
    let missed = |((said, is), variance): (&(f64, f64), &f64)| match (said - is).powi(2) {
        0.0 => 0.0,
        // Of what does not vary nothing can be explained.
        _ if *variance == 0.0 => 1.0,
        square => square / variance,
    };
    1.0 - told.iter().zip(variances).map(missed).sum::<f64>() / told.len().max(1) as f64
}

/// Answers to a part of all samples, as they score where there are no others: by what its own amounts vary.
pub fn alone(answers: &[Answer]) -> Vec<Answer> {
    let amounts = |answer: &Answer| if let Told::Amounts(told) = &answer.told { told.clone() } else { vec![] };
    let all: Vec<Vec<(f64, f64)>> = answers.iter().map(amounts).collect();
    let of = |at: usize| variance(all.iter().filter_map(|told| told.get(at)).map(|(_, is)| *is));
    let variances: Vec<f64> = (0..all.first().map_or(0, Vec::len)).map(of).collect();
    let again = |(answer, told): (&Answer, &Vec<(f64, f64)>)| match answer.told {
        Told::Amounts(_) => Answer { score: explained(told, &variances), ..answer.clone() },
        Told::Class(_) | Told::Labels(_) => answer.clone(),
    };
    answers.iter().zip(&all).map(again).collect()
}

fn share(right: bool) -> f64 {
    f64::from(u8::from(right))
}

fn largest(said: &[f32], told: Told) -> Answer {
    let class = argmax(said);
    Answer { class, confidence: said.get(class).copied().unwrap_or_default(), score: 0.0, loss: 0.0, told }
}

impl Answer {
    /// Whether all is said as it should be: of classes and labels.
    pub fn right(&self) -> bool {
        self.score >= 1.0
    }

    /// The class of the sample, where it has one.
    pub fn label(&self) -> Option<usize> {
        match self.told {
            Told::Class(label) => Some(label),
            Told::Labels(_) | Told::Amounts(_) => None,
        }
    }

    /// Its class, or all labels that it has.
    pub fn classes(&self) -> Vec<usize> {
        match &self.told {
            Told::Class(label) => vec![*label],
            Told::Labels(told) => told.iter().enumerate().filter(|(_, (_, is))| *is).map(|(label, _)| label).collect(),
            Told::Amounts(_) => vec![],
        }
    }
}

/// The mean of the scores: of classes and labels the share of right answers, of amounts what is explained of their variance.
pub fn value(answers: &[Answer]) -> f64 {
    answers.iter().map(|answer| answer.score).sum::<f64>() / answers.len().max(1) as f64
}

/// Where [`value`] lies with 95 % confidence.
pub fn interval95(answers: &[Answer]) -> (f64, f64) {
    if answers.iter().any(|answer| matches!(answer.told, Told::Amounts(_))) {
        return mean95(&answers.iter().map(|answer| answer.score).collect::<Vec<_>>());
    }
    wilson95(answers.iter().filter(|answer| answer.right()).count() as u64, answers.len() as u64)
}

/// Of each label; none where samples have a class, or amounts.
pub fn f1_of_each(answers: &[Answer]) -> Vec<f64> {
    let told = |answer: &Answer| if let Told::Labels(told) = &answer.told { told.clone() } else { vec![] };
    let rows: Vec<Vec<(bool, bool)>> = answers.iter().map(told).collect();
    let of = |label: usize| f1(rows.iter().filter_map(|row| row.get(label).copied()));
    (0..rows.first().map_or(0, Vec::len)).map(of).collect()
}

/// Of each amount, in its unit; none of other tasks.
pub fn mean_absolute_error(answers: &[Answer]) -> Vec<f64> {
    let mut sums = Vec::new();
    for answer in answers {
        let Told::Amounts(told) = &answer.told else { return vec![] };
        sums.resize(told.len(), 0.0);
        sums.iter_mut().zip(told).for_each(|(sum, (said, is))| *sum += (said - is).abs());
    }
    sums.into_iter().map(|sum: f64| sum / answers.len() as f64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(got: f64, expected: f64) {
        assert!((got - expected).abs() < 1e-6, "{got}, not {expected}");
    }

    #[test]
    fn a_class_is_right_or_wrong_and_costs_what_it_was_thought_unlikely() {
        let judge = Judge::new(Task::Classification, Loss::cross_entropy(), [].into_iter());
        let answer = judge.of_class(&[0.2, 0.5, 0.3], 2);
        assert_eq!((answer.class, answer.confidence, answer.right(), answer.label()), (1, 0.5, false, Some(2)));
        close(answer.loss, -(0.3_f64.ln()));
        assert!(judge.of_class(&[0.2, 0.5, 0.3], 1).right());
        assert!(judge.of_class(&[1.0, 0.0], 1).loss < 100.0);
    }

    #[test]
    fn labels_are_right_together_and_each_has_its_f1() {
        let judge = Judge::new(Task::Multilabel, Loss::BinaryCrossEntropy, [].into_iter());
        let answers = [judge.of_values(&[0.9, 0.1], &[1.0, 0.0]), judge.of_values(&[0.9, 0.4], &[1.0, 1.0])];
        assert_eq!([0, 1].map(|at| answers[at].right()), [true, false]);
        assert_eq!((value(&answers), answers[1].classes()), (0.5, vec![0, 1]));
        close(answers[1].loss, -(0.9_f64.ln() + 0.4_f64.ln()) / 2.0);
        assert_eq!((f1_of_each(&answers), interval95(&answers)), (vec![1.0, 0.0], wilson95(1, 2)));
        assert!(mean_absolute_error(&answers).is_empty());
    }

    /// By hand: of 1, 2, 3, 6 the mean is 3, the variance 3.5; of four times 10 there is none.
    #[test]
    fn amounts_are_told_by_the_variance_that_is_explained() {
        let rows = [[1.0, 10.0], [2.0, 10.0], [3.0, 10.0], [6.0, 10.0]];
        let judge = |task| Judge::new(task, Loss::Huber { delta: 1.0 }, rows.iter().map(|row| &row[..]));
        let of = |said: [f32; 2]| rows.map(|row| judge(Task::Regression).of_values(&said, &row));
        close(value(&of([3.0, 10.0])), 0.5);
        close(value(&of([3.0, 9.0])), 0.0);
        let exact = rows.map(|row| judge(Task::Regression).of_values(&row, &row));
        assert_eq!((value(&exact), interval95(&exact), exact[0].loss), (1.0, (1.0, 1.0), 0.0));
        let off = of([5.0, 10.0]);
        assert_eq!((mean_absolute_error(&off), off[0].label()), (vec![(4.0 + 3.0 + 2.0 + 1.0) / 4.0, 0.0], None));
        close(off[0].loss, (4.0 - 0.5) / 2.0);
        // As all numbers of a single value are no other than their mean, whatever the rounding.
        let same = [[0.1_f32]; 600];
        let constant = Judge::new(Task::Regression, Loss::Huber { delta: 1.0 }, same.iter().map(|row| &row[..]));
        assert_eq!([0.1, 0.100_1].map(|said| constant.of_values(&[said], &[0.1]).score), [1.0, 0.0]);
        // Of the last two alone the mean is 4.5, the variance 2.25: 3 for both explains nothing of it, and worse.
        close(value(&alone(&of([3.0, 10.0])[2..])), f64::midpoint(1.0 - 4.5 / 2.25, 1.0));
        // What is no number is refused by every floor, and can be written down.
        let lost = judge(Task::Regression).of_values(&[f32::NAN, f32::INFINITY], &rows[0]);
        assert!(lost.score < -1e70 && lost.score.is_finite() && lost.loss.is_finite(), "{lost:?}");
        // Softplus of 0 is ln 2.
        let count = judge(Task::Count).of_values(&[0.0, 0.0], &rows[0]);
        assert_eq!(count.told, Told::Amounts(vec![(std::f64::consts::LN_2, 1.0), (std::f64::consts::LN_2, 10.0)]));
    }
}
