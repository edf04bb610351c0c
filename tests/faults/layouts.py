"""Folders of images from a seed, with what must become of every file: the rules a second time.

Each image has a number in its pixels, so that it is known again whatever its name and place.
"""

import collections
import io
import os

from PIL import Image

READ = (
    'jpg jpeg jpe jfif png apng gif webp avif avifs bmp ico tif tiff ppm pgm pbm pnm'
).split()  # fmt: skip
OTHERS = ['txt', 'csv', 'json', 'svg', 'heic', 'npy', 'pfm', 'md']
TRAIN, VALIDATION, TEST = ['train', 'training'], ['val', 'valid', 'validation', 'dev'], ['test']
CLASSES = ['cat', 'Cat', 'a dog', 'x.jpg', 'n01440764', 'é', '0', 'evaluate', 'trains']
HIDDEN = ['.DS_Store', '._0.jpg', 'Thumbs.db', '.hidden.png', 'desktop.ini']
FOLDERS = ['more', 'y.png', '1', 'deep er']


class Layout:
    """A folder made from a seed.

    Attributes:
        root: the folder.
        images: the split's folder ('' in a folder of classes) and the class of each number.
        unread: how many files are of each kind that is not read.
        empty: how many folders are empty.
        wrong: names of which a refusal must have one; none if the folder is good.
    """

    def __init__(self, root, rng):
        self.root, self.rng = root, rng
        self.images, self.unread, self.wrong = {}, collections.Counter(), []
        self.empty, self._made = 0, 0
        classes = rng.sample(CLASSES, rng.randint(1, 4))
        splits = self._splits() if rng.random() < 0.7 else ['']
        self.splits = {self._of(split): split for split in splits}
        if splits != [''] and rng.random() < 0.1:
            classes.append(rng.choice(['test', 'Val', 'train']))
        for split in splits:
            for name in classes:
                self._class(split, name)
            if split and rng.random() < 0.3:
                self._stray(root / split)
        if rng.random() < 0.4:
            self._stray(root)
        if rng.random() < 0.4:
            self._spoil(splits, classes)

    @staticmethod
    def _of(name):
        name = name.lower()
        kinds = {'': [''], 'train': TRAIN, 'validation': VALIDATION, 'test': TEST}
        return next(kind for kind, names in kinds.items() if name in names)

    def _splits(self):
        rng = self.rng
        kinds = [TRAIN, *rng.sample([VALIDATION, TEST], rng.randint(0, 2))]
        how = [str.lower, str.upper, str.title]
        return [rng.choice(how)(rng.choice(names)) for names in kinds]

    def _class(self, split, name):
        home = self.root / split / name
        if self.rng.random() < 0.15:  # a link to a folder elsewhere
            elsewhere = self.root.parent / f'{self.root.name}-{split}-{name}'
            elsewhere.mkdir()
            home.parent.mkdir(parents=True, exist_ok=True)
            home.symlink_to(elsewhere)
        home.mkdir(parents=True, exist_ok=True)
        folders = [home]
        while self.rng.random() < 0.35:
            below = self.rng.choice(folders) / self.rng.choice(FOLDERS)
            if not below.exists():
                below.mkdir()
                folders.append(below)
        for _ in range(self.rng.randint(3, 5)):
            place = home if self.rng.random() < 0.6 else self.rng.choice(folders)
            self._image(place, split, name)
        self._image(home, split, name)
        for folder in folders:
            while self.rng.random() < 0.3:
                self._junk(folder)
        self.empty += sum(not any(folder.iterdir()) for folder in folders)

    def _image(self, folder, split, name):
        self._made += 1
        number, suffix = self._made, self.rng.choice(READ)
        suffix = self.rng.choice([suffix, suffix.upper(), suffix.title()])
        pixels = Image.new('RGB', (2, 2), (number % 256, number // 256, 77))
        content = io.BytesIO()
        pixels.save(content, 'PNG')
        path = folder / f'{number}.{suffix}'
        if self.rng.random() < 0.1:  # a link to a file elsewhere
            file = self.root.parent / f'{self.root.name}-{number}'
            file.write_bytes(content.getvalue())
            path.symlink_to(file)
        else:
            path.write_bytes(content.getvalue())
        self.images[number] = split, name

    def _junk(self, folder):
        self._made += 1
        name = str(self._made)
        match self.rng.randrange(6):
            case 0:
                path = folder / self.rng.choice(HIDDEN)
                self.unread['hidden'] += not path.exists()
                path.write_bytes(b'')
            case 1:
                path = folder / self.rng.choice(['.ipynb_checkpoints', '__MACOSX', '.git'])
                if not path.exists():
                    (path / 'below').mkdir(parents=True)
                    (path / 'a.jpg').write_bytes(b'')
                    (path / 'below' / 'b').write_bytes(b'')
                    self.unread['hidden'] += 2
            case 2:
                suffix = self.rng.choice(OTHERS)
                (folder / f'{name}.{self.rng.choice([suffix, suffix.upper()])}').write_bytes(b'')
                self.unread[f'.{suffix}'] += 1
            case 3:
                (folder / f'{name}.jpg').symlink_to('nowhere.jpg')
                self.unread['broken links'] += 1
            case 4:
                os.mkfifo(folder / f'{name}.png')
                self.unread['not files'] += 1
            case 5:
                (folder / name).write_bytes(b'')
                self.unread['no suffix'] += 1

    def _stray(self, folder):
        """Files beside classes or splits."""
        self._junk(folder)
        self._made += 1
        (folder / f'{self._made}.jpg').write_bytes(b'no image')
        self.unread['outside of classes'] += 1

    def _spoil(self, splits, classes):
        """One thing for which the folder must be refused."""
        rng, root, first = self.rng, self.root, self.root / splits[0]
        match rng.randrange(7):
            case 0:
                known = self.splits.get('validation')
                double = rng.choice([n for n in VALIDATION if n != (known or '').lower()])
                (root / double).mkdir()
                self.wrong = [double]
                if known is None and splits != ['']:
                    self.wrong = [str(root / double / min(classes))]  # without images
            case 1:
                stray = 'test' if splits == [''] else rng.choice(['extra', 'images', 'eval'])
                (root / stray).mkdir()
                self.wrong = [stray]
            case 2:
                (first / classes[0] / 'Val').mkdir()
                self.wrong = ['Val']
            case 3:
                loop = rng.choice(['.', '..', first / classes[-1]])
                (first / classes[0] / 'loop').symlink_to(loop)
                self.wrong = ['loop']
            case 4:
                (first / 'nothing').mkdir()
                self.wrong = ['nothing']
            case 5:
                (root / splits[-1] / 'another').mkdir()
                self.wrong = ['another']
            case 6:
                (first / 'a link').symlink_to(first / classes[0], target_is_directory=True)
                self.wrong = ['a link']
