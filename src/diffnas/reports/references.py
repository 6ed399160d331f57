"""What to cite: BibTeX of methods, search spaces and data sets, by their names in recipes."""

from __future__ import annotations

from collections.abc import Iterable

Fields = tuple[str, str, str, int, str]
"""(authors, title, venue, year, arXiv number or note); a venue that is empty is an arXiv report."""

ENTRIES: dict[str, Fields] = {
    "darts": (
        "Liu, Hanxiao and Simonyan, Karen and Yang, Yiming",
        "{DARTS}: Differentiable Architecture Search",
        "International Conference on Learning Representations (ICLR)",
        2019,
        "1806.09055",
    ),
    "drnas": (
        "Chen, Xiangning and Wang, Ruochen and Cheng, Minhao and Tang, Xiaocheng and Hsieh, Cho-Jui",
        "{DrNAS}: {Dirichlet} Neural Architecture Search",
        "International Conference on Learning Representations (ICLR)",
        2021,
        "2006.10355",
    ),
    "pcdarts": (
        "Xu, Yuhui and Xie, Lingxi and Zhang, Xiaopeng and Chen, Xin and Qi, Guo-Jun and Tian, Qi and Xiong, Hongkai",
        "{PC-DARTS}: Partial Channel Connections for Memory-Efficient Architecture Search",
        "International Conference on Learning Representations (ICLR)",
        2020,
        "1907.05737",
    ),
    "pdarts": (
        "Chen, Xin and Xie, Lingxi and Wu, Jun and Tian, Qi",
        "Progressive Differentiable Architecture Search: Bridging the Depth Gap between Search and Evaluation",
        "IEEE/CVF International Conference on Computer Vision (ICCV)",
        2019,
        "1904.12760",
    ),
    "beta-darts": (
        "Ye, Peng and Li, Baopu and Li, Yikang and Chen, Tao and Fan, Jiayuan and Ouyang, Wanli",
        "$\\beta$-{DARTS}: Beta-Decay Regularization for Differentiable Architecture Search",
        "IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)",
        2022,
        "2203.01665",
    ),
    "darts-minus": (
        "Chu, Xiangxiang and Wang, Xiaoxing and Zhang, Bo and Lu, Shun and Wei, Xiaolin and Yan, Junchi",
        "{DARTS-}: Robustly Stepping out of Performance Collapse Without Indicators",
        "International Conference on Learning Representations (ICLR)",
        2021,
        "2009.01027",
    ),
    "darts-plus": (
        "Liang, Hanwen and Zhang, Shifeng and Sun, Jiacheng and He, Xingqiu and Huang, Weiran and Zhuang, Kechen and"
        " Li, Zhenguo",
        "{DARTS+}: Improved Differentiable Architecture Search with Early Stopping",
        "",
        2019,
        "1909.06035",
    ),
    "fairdarts": (
        "Chu, Xiangxiang and Zhou, Tianbao and Zhang, Bo and Li, Jixiang",
        "{Fair DARTS}: Eliminating Unfair Advantages in Differentiable Architecture Search",
        "European Conference on Computer Vision (ECCV)",
        2020,
        "1911.12126",
    ),
    "lambda-darts": (
        "Movahedi, Sajad and Adabinejad, Melika and Imani, Ayyoob and Keshavarz, Arezou and Dehghani, Mostafa and"
        " Shakery, Azadeh and Araabi, Babak N.",
        "$\\Lambda$-{DARTS}: Mitigating Performance Collapse by Harmonizing Operation Selection among Cells",
        "International Conference on Learning Representations (ICLR)",
        2023,
        "2210.07998",
    ),
    "oles": (
        "Jiang, Shen and Ji, Zipeng and Zhu, Guanghui and Yuan, Chunfeng and Huang, Yihua",
        "Operation-Level Early Stopping for Robustifying Differentiable {NAS}",
        "Advances in Neural Information Processing Systems (NeurIPS)",
        2023,
        "",
    ),
    "mmrazor-darts": (
        "{MMRazor Contributors}",
        "{OpenMMLab} Model Compression Toolbox and Benchmark",
        "https://github.com/open-mmlab/mmrazor",
        2021,
        "",
    ),
    "sgas": (
        'Li, Guohao and Qian, Guocheng and Delgadillo, Itzel C. and M{\\"u}ller, Matthias and Thabet, Ali and'
        " Ghanem, Bernard",
        "{SGAS}: Sequential Greedy Architecture Search",
        "IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)",
        2020,
        "1912.00195",
    ),
    "dsnas": (
        "Hu, Shoukang and Xie, Sirui and Zheng, Hehui and Liu, Chunxiao and Shi, Jianping and Liu, Xunying and Lin, Dahua",
        "{DSNAS}: Direct Neural Architecture Search without Parameter Retraining",
        "IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)",
        2020,
        "2002.09128",
    ),
    "enas": (
        "Pham, Hieu and Guan, Melody Y. and Zoph, Barret and Le, Quoc V. and Dean, Jeff",
        "Efficient Neural Architecture Search via Parameter Sharing",
        "International Conference on Machine Learning (ICML)",
        2018,
        "1802.03268",
    ),
    "gdas": (
        "Dong, Xuanyi and Yang, Yi",
        "Searching for a Robust Neural Architecture in Four {GPU} Hours",
        "IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)",
        2019,
        "1910.04465",
    ),
    "rsws": (
        "Li, Liam and Talwalkar, Ameet",
        "Random Search and Reproducibility for Neural Architecture Search",
        "Conference on Uncertainty in Artificial Intelligence (UAI)",
        2019,
        "1902.07638",
    ),
    "snas": (
        "Xie, Sirui and Zheng, Hehui and Liu, Chunxiao and Lin, Liang",
        "{SNAS}: Stochastic Neural Architecture Search",
        "International Conference on Learning Representations (ICLR)",
        2019,
        "1812.09926",
    ),
    "smooth-darts": (
        "Chen, Xiangning and Hsieh, Cho-Jui",
        "Stabilizing Differentiable Architecture Search via Perturbation-based Regularization",
        "International Conference on Machine Learning (ICML)",
        2020,
        "2002.05283",
    ),
    "darts-pt": (
        "Wang, Ruochen and Cheng, Minhao and Chen, Xiangning and Tang, Xiaocheng and Hsieh, Cho-Jui",
        "Rethinking Architecture Selection in Differentiable {NAS}",
        "International Conference on Learning Representations (ICLR)",
        2021,
        "2108.04392",
    ),
    "robust-darts": (
        "Zela, Arber and Elsken, Thomas and Saikia, Tonmoy and Marrakchi, Yassine and Brox, Thomas and Hutter, Frank",
        "Understanding and Robustifying Differentiable Architecture Search",
        "International Conference on Learning Representations (ICLR)",
        2020,
        "1909.09656",
    ),
    "nasbench201": (
        "Dong, Xuanyi and Yang, Yi",
        "{NAS-Bench-201}: Extending the Scope of Reproducible Neural Architecture Search",
        "International Conference on Learning Representations (ICLR)",
        2020,
        "2001.00326",
    ),
    "shufflenet-blocks": (
        "Guo, Zichao and Zhang, Xiangyu and Mu, Haoyuan and Heng, Wen and Liu, Zechun and Wei, Yichen and Sun, Jian",
        "Single Path One-Shot Neural Architecture Search with Uniform Sampling",
        "European Conference on Computer Vision (ECCV)",
        2020,
        "1904.00420",
    ),
    "cifar": (
        "Krizhevsky, Alex",
        "Learning Multiple Layers of Features from Tiny Images",
        "University of Toronto",
        2009,
        "",
    ),
    "svhn": (
        "Netzer, Yuval and Wang, Tao and Coates, Adam and Bissacco, Alessandro and Wu, Bo and Ng, Andrew Y.",
        "Reading Digits in Natural Images with Unsupervised Feature Learning",
        "NIPS Workshop on Deep Learning and Unsupervised Feature Learning",
        2011,
        "",
    ),
    "imagenet16": (
        "Chrabaszcz, Patryk and Loshchilov, Ilya and Hutter, Frank",
        "A Downsampled Variant of {ImageNet} as an Alternative to the {CIFAR} Datasets",
        "",
        2017,
        "1707.08819",
    ),
    "imagenet": (
        "Deng, Jia and Dong, Wei and Socher, Richard and Li, Li-Jia and Li, Kai and Fei-Fei, Li",
        "{ImageNet}: A Large-Scale Hierarchical Image Database",
        "IEEE Conference on Computer Vision and Pattern Recognition (CVPR)",
        2009,
        "",
    ),
    "embedded": (
        "{Python Software Foundation}",
        "The {Python} Language Reference",
        "https://docs.python.org/3/reference/",
        2023,
        "",
    ),
    "digits": (
        "Alpaydin, Ethem and Kaynak, Cenk",
        "Optical Recognition of Handwritten Digits",
        "UCI Machine Learning Repository",
        1998,
        "",
    ),
    "ptb": (
        "Marcus, Mitchell P. and Santorini, Beatrice and Marcinkiewicz, Mary Ann",
        "Building a Large Annotated Corpus of {English}: The {Penn Treebank}",
        "Computational Linguistics",
        1993,
        "",
    ),
    "wikitext": (
        "Merity, Stephen and Xiong, Caiming and Bradbury, James and Socher, Richard",
        "Pointer Sentinel Mixture Models",
        "International Conference on Learning Representations (ICLR)",
        2017,
        "1609.07843",
    ),
}
CITED = {
    "darts-cnn": "darts",
    "darts-rnn": "darts",
    "cifar10": "cifar",
    "cifar100": "cifar",
    "imagenet16-120": "imagenet16",
    "wikitext-2": "wikitext",
}
"""The entry of what has none of its own name."""


def bibtex(names: Iterable[str]) -> str:
    """BibTeX of the methods, spaces and data sets `names`, each once; those that are not known are left out."""
    keys = dict.fromkeys(CITED.get(name, name) for name in names)
    return "\n\n".join(_entry(key, *ENTRIES[key]) for key in keys if key in ENTRIES)


def _entry(key: str, authors: str, title: str, venue: str, year: int, arxiv: str) -> str:
    kind, place = _kind(venue)
    fields = {"author": authors, "title": title, place: venue, "year": str(year)}
    fields |= {"eprint": arxiv, "archiveprefix": "arXiv"} if arxiv else {}
    lines = [f"  {name} = {{{value}}}" for name, value in fields.items() if value]
    return f"@{kind}{{{key},\n" + ",\n".join(lines) + "\n}"


def _kind(venue: str) -> tuple[str, str]:
    """The kind of entry, and the field that `venue` is."""
    if "Conference" in venue or "Workshop" in venue:
        return "inproceedings", "booktitle"
    if venue.startswith("University"):
        return "techreport", "institution"
    if venue.startswith("https:"):
        return "misc", "url"
    return ("article", "journal") if venue == "Computational Linguistics" else ("misc", "howpublished")
