#!/bin/sh
# Trains the models of this folder again, in runs/shipped/, and replaces them.
# A killed one resumes. With names of models as arguments only these: sh make.sh vit_digits
set -e
cd "$(dirname "$0")/../.."

make() { # name of the model, of its experiment, and its epochs
    vitjax train "$2" --epochs "$3" --out "runs/shipped/$1"
    rm -rf "experiments/models/$1"
    vitjax convert "runs/shipped/$1" --dtype float16 --out "experiments/models/$1"
}

for model in ${*:-vit_digits vit_cifar10 cait_cifar10 patchconvnet_cifar10}; do
    case $model in
    vit_digits) make "$model" digits 60 ;;
    vit_cifar10) make "$model" vit_cifar10_small 10 ;;
    cait_cifar10) make "$model" cait_cifar10_small 7 ;;
    patchconvnet_cifar10) make "$model" patchconvnet_cifar10_small 8 ;;
    *) echo "no model of this folder: $model" >&2 && exit 1 ;;
    esac
done
