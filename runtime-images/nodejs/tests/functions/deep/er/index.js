exports.handler = async () => 'deep';
