//! Numbers as people read them: three digits and a unit.

/// `0.12`, `7.5`, `120`, `3.4k` per second.
pub(super) fn rate(per_second: f64) -> String {
    match per_second {
        rate if rate <= 0.0 => "0".to_owned(),
        rate if rate < 1.0 => format!("{rate:.2}"),
        rate if rate < 10.0 => format!("{rate:.1}"),
        rate if rate < 1000.0 => format!("{rate:.0}"),
        rate => scaled(rate),
    }
}

pub(super) fn count(number: u64) -> String {
    number.to_string()
}

/// A part of a whole: `0.2%`, `37%`.
pub(super) fn percent(part: u64, whole: u64) -> String {
    match 100.0 * part as f64 / whole.max(1) as f64 {
        percent if percent > 0.0 && percent < 9.95 => format!("{percent:.1}%"),
        percent => format!("{percent:.0}%"),
    }
}

/// A time given in microseconds; nothing if there is none.
pub(super) fn micros(time: Option<u64>) -> String {
    let Some(micros) = time else {
        return String::new();
    };
    let millis = micros as f64 / 1000.0;
    match micros {
        0..1_000 => format!("{micros}µs"),
        1_000..9_950 => format!("{millis:.1}ms"),
        9_950..999_500 => format!("{millis:.0}ms"),
        _ => format!("{:.1}s", millis / 1000.0),
    }
}

/// `512B`, `3.4kB`, `12MB`.
pub(super) fn bytes(number: u64) -> String {
    match number {
        0 => String::new(),
        1..1000 => format!("{number}B"),
        _ => format!("{}B", scaled(number as f64)),
    }
}

fn scaled(mut number: f64) -> String {
    let mut unit = "";
    for next in ["k", "M", "G", "T", "P"] {
        if number < 999.5 {
            break;
        }
        (number, unit) = (number / 1000.0, next);
    }
    if number < 9.95 {
        format!("{number:.1}{unit}")
    } else {
        format!("{number:.0}{unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let rates = [0.0, 0.04, 7.46, 123.4, 3_456.0, 12_345.0];
        assert_eq!(rates.map(rate), ["0", "0.04", "7.5", "123", "3.5k", "12k"]);
        let parts = [0, 1, 99, 995, 1000];
        let percents = parts.map(|part| percent(part, 1000));
        assert_eq!(percents, ["0%", "0.1%", "9.9%", "100%", "100%"]);
        assert_eq!(percent(1, 0), "100%");
        let times = [999, 1_000, 12_345, 999_499, 1_234_000].map(|time| micros(Some(time)));
        assert_eq!(times, ["999µs", "1.0ms", "12ms", "999ms", "1.2s"]);
        assert_eq!(micros(None), "");
        let sizes = [0, 999, 1_000, 123_456, u64::MAX].map(bytes);
        assert_eq!(sizes, ["", "999B", "1.0kB", "123kB", "18447PB"]);
    }
}
