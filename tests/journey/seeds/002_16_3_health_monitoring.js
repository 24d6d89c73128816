const checkHealth = async () => {
  const response = await fetch('/health');
  const health = await response.json();
  
  if (health.status !== 'healthy') {
    console.error('Service unhealthy:', health.services);
    return false;
  }
  
  console.log('Service healthy, uptime:', health.uptime);
  return true;
};

// Check health every minute
setInterval(checkHealth, 60000);
