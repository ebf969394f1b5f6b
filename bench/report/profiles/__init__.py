"""What has been measured of networks, for people and for machines: tables, exponents of growth, figures."""

from bench.report.profiles.export import profiles_csv
from bench.report.profiles.scaling import scaling_sheets
from bench.report.profiles.sheets import measurement_sheets
from bench.report.profiles.write import measured_section, profiles_sheets, write_profiles

__all__ = [
    "measured_section",
    "measurement_sheets",
    "profiles_csv",
    "profiles_sheets",
    "scaling_sheets",
    "write_profiles",
]
