# Runs the client that the package brings, else the one that is on the PATH.
own=$LAMBDA_TASK_ROOT/node_modules/aws-lambda-ric/index.mjs
[ -f "$own" ] && exec node "$own" "$_HANDLER"
installed=$(command -v aws-lambda-ric) && exec node "$(readlink -f "$installed")" "$_HANDLER"
echo "aws-lambda-ric is neither in the package's node_modules nor on the node's PATH: npm install aws-lambda-ric" >&2
exit 1
