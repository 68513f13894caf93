"""Is a pretrained encoder backdoored? An audit, specimens to test it on, measures, and what may be done about it."""

from .audit import audit_encoder, audit_folder
from .audit_report import AuditReport, Finding
from .calibration import Calibration
from .measures import TriggerMeasure, measure_classification, measure_tagging
from .purify import continue_contrastive, fine_prune, project_out, reinitialize_pooler
from .specimens import Recipe, implant_backdoor, is_specimen, save_specimen
from .stages import AuditSettings
from .triggers import draw_triggers, insert_trigger

__all__ = [
    "AuditReport",
    "AuditSettings",
    "Calibration",
    "Finding",
    "Recipe",
    "TriggerMeasure",
    "audit_encoder",
    "audit_folder",
    "continue_contrastive",
    "draw_triggers",
    "fine_prune",
    "implant_backdoor",
    "insert_trigger",
    "is_specimen",
    "measure_classification",
    "measure_tagging",
    "project_out",
    "reinitialize_pooler",
    "save_specimen",
]
