"""The methods, by the name recipes use; each is one file that reads like its paper's algorithm."""

METHODS = {
    "darts": "diffnas.methods.darts:DARTS",
    "drnas": "diffnas.methods.drnas:DrNAS",
    "pcdarts": "diffnas.methods.pcdarts:PCDARTS",
    "pdarts": "diffnas.methods.pdarts:PDARTS",
    "beta-darts": "diffnas.methods.beta_darts:BetaDARTS",
    "darts-minus": "diffnas.methods.darts_minus:DARTSMinus",
    "fairdarts": "diffnas.methods.fairdarts:FairDARTS",
    "mmrazor-darts": "diffnas.methods.mmrazor_darts:MMRazorDARTS",
    "sgas": "diffnas.methods.sgas:SGAS",
    "dsnas": "diffnas.methods.dsnas:DSNAS",
    "enas": "diffnas.methods.enas:ENAS",
    "gdas": "diffnas.methods.gdas:GDAS",
    "rsws": "diffnas.methods.rsws:RSWS",
    "snas": "diffnas.methods.snas:SNAS",
}
