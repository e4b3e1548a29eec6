//! Enums that label counters and log lines: variants and their stable names in one table.

/// Declares an enum without fields, with `ALL`, `NAMES`, `name` and `Display`.
macro_rules! labels {
    (
        $(#[$about:meta])*
        pub enum $name:ident { $($(#[$doc:meta])* $variant:ident = $label:literal,)* }
    ) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$doc])* $variant,)* }

        impl $name {
            /// Every variant, in the order of their declaration.
            pub const ALL: [Self; Self::NAMES.len()] = [$(Self::$variant,)*];

            /// Their names, in the same order.
            pub const NAMES: [&'static str; [$($label,)*].len()] = [$($label,)*];

            /// The stable name in metrics and logs.
            pub const fn name(self) -> &'static str {
                Self::NAMES[self as usize]
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

pub(crate) use labels;
